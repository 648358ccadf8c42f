"""Differences between what a record says of an earlier result and what the plan asks for, as sentences."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from herdbook.humanize import plural
from herdbook.key import SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan import Part, Plan, Tensor


def code(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each module or package that differs."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        what = f"code of {name}" if "." in name else name
        if old == new:
            continue
        if old is None or new is None:
            yield f"{what} {'counts now' if old is None else 'counts no longer'}"
        else:
            yield f"{what} changed" if "." in name else f"{what} {old} -> {new}"


def tensors(before: Mapping[str, Mapping[str, Any]], planned: tuple[Tensor, ...]) -> Iterator[str]:
    """Yield a sentence on the tensors that a shard has, and one on what is done with them, if these differ."""
    now = {tensor.name: tensor for tensor in planned}
    more, fewer = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
    for names, word in ((more, "more"), (fewer, "fewer")):
        if names:
            yield f"it has {plural(len(names), 'tensor')} {word}: {_first(names)}"
    both = sorted(now.keys() & before.keys())
    formed = [
        name
        for name in both
        if (before[name]["dtype"], list(before[name]["shape"])) != (now[name].dtype, list(now[name].shape))
    ]
    if formed:
        yield f"another dtype or shape: {_first(formed)}"
    treated: dict[tuple[str, str], list[str]] = {}
    for name in both:
        if (pair := (str(before[name].get("action")), now[name].action)) and pair[0] != pair[1]:
            treated.setdefault(pair, []).append(name)
    for (old, new), names in treated.items():
        yield f"{plural(len(names), 'tensor')} had the action {old}, now {new}: {_first(names)}"


def parents(plan: Plan, before: Mapping[str, Mapping[str, Any]], part: Part) -> Iterator[str]:
    """Yield a sentence if a shard is made from other shards than those that its record cites."""
    cited = {
        origin["key"]: origin["model"] for entry in before.values() for origin in entry.get("from") or []
    }
    wanted = {origin.part for tensor in part.tensors if tensor.name in before for origin in tensor.origins}
    if not cited or set(cited) == wanted:
        return
    old = sorted(f"{cited[key]} ({key[:SHORT]})" for key in cited.keys() - wanted)
    new = sorted(f"{plan.parts[key].model} ({key[:SHORT]})" for key in wanted - cited.keys())
    yield f"it was made from {', '.join(old) or 'fewer shards'}, now from {', '.join(new) or 'fewer'}"


def order(before: Mapping[str, Mapping[str, Any]], part: Part) -> Iterator[str]:
    """Yield a sentence if tensors take the place of others of the same parents."""
    moved = [
        tensor.name
        for tensor in part.tensors
        if (cited := before.get(tensor.name, {}).get("from"))
        and Counter(origin["key"] for origin in cited) == Counter(o.part for o in tensor.origins)
        and [(o["key"], o["tensor"]) for o in cited] != [(o.part, o.tensor) for o in tensor.origins]
    ]
    if moved:
        yield f"{plural(len(moved), 'tensor')} made of the same shards in another way or order: {_first(moved)}"


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}, …"
