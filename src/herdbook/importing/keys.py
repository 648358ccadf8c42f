"""The keys that mergekit reads, and what is taken for one of them where it is misspelt."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from herdbook.humanize import closest
from herdbook.importing.value import NEARLY, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMON = ("name", "merge_method", "dtype")
MIXTURE_KEYS = (
    *("base_model", "experts", "gate_mode", "experts_per_token", "shared_experts", "architecture"),
    *COMMON,
)
EXPERT_KEYS = ("source_model", "positive_prompts", "negative_prompts", "noise_scale", "residual_scale")
CONTENT_KEYS = ("models", "slices", "parameters")
DENSE_KEYS = (
    *COMMON,
    *CONTENT_KEYS,
    *("modules", "base_model", "out_dtype", "tokenizer", "tokenizer_source", "chat_template"),
)
SLICE_KEYS = ("sources", "base_model", "parameters", "residual_weight")
MODEL_KEYS = ("model", "parameters")
SOURCE_KEYS = (*MODEL_KEYS, "layer_range")

# The keys that identify a configuration, each with its program and its required keys.
KINDS = {
    "experts": "mergekit-moe (`base_model` and `experts`)",
    "merge_method": "mergekit-yaml (`merge_method`)",
}
MERGED = ("modules", "models", "slices")  # a dense merge has one of these
# From which similarity on a key is meant as one of KINDS, in what is like a configuration otherwise: `method` is.
LIKE_KIND = 0.6
MOST_KEYS = 50  # of a configuration, among which a misspelt one is looked for
_KNOWN = frozenset((*DENSE_KEYS, *MIXTURE_KEYS))


def is_configuration(content: Any) -> bool:
    """Return whether a document has a key that identifies a configuration, itself or in one of its modules."""
    return any(kind in place for kind in KINDS for place in _places(content))


def is_nearly_one(content: Any) -> bool:
    """Return whether a document is a configuration but for the spelling of keys: it has what such a configuration merges."""
    if is_configuration(content):
        return False
    return any(_meant_kind(place, content) is not None for place in _places(content))


def identified(value: Value) -> Value:
    """Return a configuration with the key that identifies it: a misspelt one is refused, and read as that."""
    meant = None if is_configuration(value.content) else _meant_kind(value.content, value.content)
    return value if meant is None else _renamed(value, *meant)


def corrected(value: Value, *wanted: str, kind: Any = object) -> Value:
    """Return a mapping that has one of several keys. If it has none of them, a misspelt one is refused, and read as that.

    Args:
        value: The mapping.
        wanted: The keys.
        kind: What the value of a misspelt one is an instance of.
    """
    if any(value.content.get(key) for key in wanted):
        return value
    found = _meant(value.content, wanted, NEARLY)
    meant = next((pair for pair in found if isinstance(value.content[pair[0]], kind)), None)
    return value if meant is None else _renamed(value, *meant)


def _renamed(value: Value, given: Any, meant: str) -> Value:
    value.child(given).refuse(f"unknown key; did you mean {meant!r}?")
    content = {meant if key == given else key: entry for key, entry in value.content.items()}
    old, new = (*value.keys, given), (*value.keys, meant)
    lines = {
        new + keys[len(old) :] if keys[: len(old)] == old else keys: number
        for keys, number in value.lines.items()
    }
    return replace(value, content=content, lines=lines)


def _meant_kind(place: dict[Any, Any], content: dict[Any, Any]) -> tuple[Any, str] | None:
    """Return the key of a document, or of one of its modules, that is meant to identify it, and which one it is meant as."""
    is_mixture = _has(content, ("base_model", "gate_mode"), str)
    is_dense = _has(content, MERGED, list | dict)
    for least in (NEARLY, LIKE_KIND):
        for given, meant in _meant(place, tuple(KINDS), least):
            kind, is_like = (list, is_mixture) if meant == "experts" else (str, is_dense)
            if is_like and isinstance(place[given], kind):
                return given, meant
    return None


def _places(content: Any) -> Iterator[dict[Any, Any]]:
    if isinstance(content, dict):
        yield content
        modules = content.get("modules")
        for place in modules.values() if isinstance(modules, dict) else ():
            if isinstance(place, dict):
                yield place


def _meant(content: dict[Any, Any], wanted: tuple[str, ...], least: float) -> Iterator[tuple[Any, str]]:
    """Yield keys that mergekit does not read, each with the one of the wanted keys that it is like."""
    for given in islice(content, MOST_KEYS):
        meant = None if given in _KNOWN else closest(str(given), wanted, least=least)
        if meant is not None and meant not in content:
            yield given, meant


def _has(content: dict[Any, Any], wanted: tuple[str, ...], kind: Any) -> bool:
    given = [*(key for key in wanted if key in content), *(key for key, _ in _meant(content, wanted, NEARLY))]
    return any(isinstance(content[key], kind) for key in given)
