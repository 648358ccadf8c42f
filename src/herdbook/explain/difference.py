"""Differences between the record of an earlier result and the plan, as sentences."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from herdbook.changes import changed_parameters, changes
from herdbook.explain.past import holder
from herdbook.humanize import plural
from herdbook.key import SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan import Part, Plan, Tensor


def code(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each module or package that differs."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        subject = f"code of {name}" if "." in name else name
        if old == new:
            continue
        if old is None or new is None:
            yield f"{subject} {'is now' if old is None else 'is no longer'} part of the key"
        else:
            yield f"{subject} changed" if "." in name else f"{subject} {old} -> {new}"


def parameters(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each parameter that differs; one for all tensors in whose own parameters the same differs.

    Args:
        before: The parameters in the record of an earlier result.
        now: Those that are planned. ``values``, if there is one, has the parameters of single tensors, by their names.
    """
    if not isinstance(before.get("values"), dict) or not isinstance(now.get("values"), dict):
        yield from changed_parameters(before, now)
        return
    rest, rest_now = ({key: of[key] for key in of if key != "values"} for of in (before, now))
    yield from changed_parameters(rest, rest_now)
    old, new = before["values"], now["values"]
    common = sorted(old.keys() & new.keys())  # `tensors` names the others
    by_path: dict[str, dict[str, list[str]]] = {}
    for tensor in common:
        for path, change in changes(old[tensor], new[tensor]):
            by_path.setdefault(path, {}).setdefault(change, []).append(tensor)
    for path, by_change in by_path.items():
        number = sum(map(len, by_change.values()))
        change, names = next(iter(by_change.items()))
        if len(by_change) > 1:  # such as numbers that rise from layer to layer
            yield f"parameter `{path}` of {plural(number, 'tensor')} differs: of {names[0]} it {change}; …"
        elif number < len(common):
            yield f"parameter `{path}` of {plural(number, 'tensor')} {change}: {_first(names)}"
        else:
            yield f"parameter `{path}` {change}"


def tensors(before: Mapping[str, Mapping[str, Any]], planned: tuple[Tensor, ...]) -> Iterator[str]:
    """Yield sentences on the tensors that a shard gains or loses, and on those whose form or action differs."""
    now = {tensor.name: tensor for tensor in planned}
    added, removed = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
    for names, word in ((added, "more"), (removed, "fewer")):
        if names:
            yield f"it has {plural(len(names), 'tensor')} {word}: {_first(names)}"
    common = sorted(now.keys() & before.keys())
    reshaped = [
        name
        for name in common
        if (before[name]["dtype"], list(before[name]["shape"])) != (now[name].dtype, list(now[name].shape))
    ]
    if reshaped:
        yield f"dtype or shape differs: {_first(reshaped)}"
    by_actions: dict[tuple[str, str], list[str]] = {}
    for name in common:
        if (actions := (str(before[name].get("action")), now[name].action)) and actions[0] != actions[1]:
            by_actions.setdefault(actions, []).append(name)
    for (old, new), names in by_actions.items():
        yield f"{plural(len(names), 'tensor')} changed their action from {old} to {new}: {_first(names)}"


def parents(plan: Plan, before: Mapping[str, Mapping[str, Any]], part: Part) -> Iterator[str]:
    """Yield a sentence if a shard is made from shards that its record does not cite, or no longer from some it cites."""
    cited = {origin["key"] for entry in before.values() for origin in entry.get("from") or []}
    planned = {origin.part for tensor in part.tensors if tensor.name in before for origin in tensor.origins}
    if not cited or cited == planned:
        return
    old, new = (
        sorted(f"{_holder(plan, part, key)} ({key[:SHORT]})" for key in keys)
        for keys in (cited - planned, planned - cited)
    )
    yield f"it was made from {', '.join(old) or 'fewer shards'}, now from {', '.join(new) or 'fewer'}"


def _holder(plan: Plan, part: Part, key: str) -> str:
    """Return the model that a shard belongs to: one of the plan, or of an earlier one whose results still exist."""
    if key in plan.parts:
        return plan.parts[key].model
    return holder(plan.layout.record(part).parent, key) or "a shard"


def order(before: Mapping[str, Mapping[str, Any]], part: Part) -> Iterator[str]:
    """Yield a sentence if tensors are made from other tensors of the same parents, or in another order."""
    moved = [
        tensor.name
        for tensor in part.tensors
        if (cited := before.get(tensor.name, {}).get("from"))
        and Counter(origin["key"] for origin in cited) == Counter(o.part for o in tensor.origins)
        and [(o["key"], o["tensor"]) for o in cited] != [(o.part, o.tensor) for o in tensor.origins]
    ]
    if moved:
        yield f"{plural(len(moved), 'tensor')} made from the same shards in another way or order: {_first(moved)}"


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}, …"
