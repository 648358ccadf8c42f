"""All problems of a recipe at once: what is misspelt is read as what was meant, so that it does not hide what else is wrong.

A recipe is checked in two stages: the form of each entry, then what the entries mean together. So that the first does not hide the
second, entries with a wrong form are left out, and what remains is checked without the checks that would need them. Nothing is
reported that only follows from another problem.
"""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, get_args

from pydantic import TypeAdapter, ValidationError

from herdbook import limits
from herdbook.faults import choices, in_words, shown, together_in_words
from herdbook.humanize import closest, did_you_mean
from herdbook.recipe.dense import Dense
from herdbook.recipe.places import keys_of
from herdbook.recipe.references import named_in
from herdbook.recipe.section import NAME_PATTERN
from herdbook.recipe.structure import keys_of_section, location
from herdbook.recipe.whole import OPERATIONS, Model, Recipe

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from herdbook.recipe.section import Section

    Keys = tuple[Any, ...]

ROUNDS = (
    5  # of reading what was meant; a misspelt name inside of what has a misspelt name is read in the next one
)
# What takes the place of a model or a release whose own entry is wrong.
_STAND_IN: dict[str, Any] = {"hub": "unknown/unknown"}
_RELEASE = {"name": "unknown", "license": "unknown"}
METHODS = [
    method
    for kind in get_args(get_args(Dense)[0])
    for method in get_args(kind.model_fields["method"].annotation)
]
_STEERING = {"gate", "semantics"}  # keys on which it depends whether others are right


@dataclass
class _Found:
    """One thing that is wrong with the form of an entry.

    Args:
        keys: The keys that lead to it.
        item: Pydantic's error.
        sections: The sections that may contain the last key.
    """

    keys: Keys
    item: ErrorDetails
    sections: list[type[Section]]


@dataclass
class _Mending:
    """A recipe that is read as it was meant, with what was wrong."""

    data: dict[str, Any]
    lines: dict[Keys, int]
    kind: type[Section]
    problems: dict[tuple[Keys, str], None] = field(default_factory=dict)
    more: int = 0  # problems of which no line is made

    def add(self, keys: Keys, words: str) -> None:
        """Add a problem."""
        self.problems.setdefault((keys, words))

    def errors(self, **context: Any) -> list[ErrorDetails]:
        """Return what pydantic finds."""
        try:
            self.kind.model_validate(self.data, context=context)
        except ValidationError as error:
            return error.errors(include_url=False)
        return []

    def form(self) -> list[_Found]:
        """Report what is wrong with the form of entries; return what could not be read as something else."""
        left: list[_Found] = []
        for _ in range(ROUNDS):
            found = [
                _Found(tuple(keys), item, sections)
                for item in self.errors(form_only=True)
                if item["type"] != "default_factory_not_called"  # it follows from another error
                for keys, sections in [location(item, self.data, self.kind)]
            ]
            renamed = self._renamed(found)
            left = [one for one in found if not (one.item["type"] == "missing" and one.keys in renamed)]
            for keys, group in _grouped(left).items():
                self._explain(keys, group)
            if len(left) > limits.PROBLEMS:
                self.more = len(left) - limits.PROBLEMS
                break
            mended = [self._mend(one, renamed) for one in left]
            if not any(mended):
                break
        return left

    def _renamed(self, found: list[_Found]) -> dict[Keys, Any]:
        """Return the keys that were meant by unknown ones, each with what is written."""
        meant: dict[Keys, Any] = {}
        for one in found[: limits.PROBLEMS]:
            if one.item["type"] != "extra_forbidden":
                continue
            around = _at(self.data, one.keys[:-1])
            known = {name for section in one.sections for name in keys_of_section(section)} - set(around)
            if near := closest(str(one.keys[-1]), known):
                meant.setdefault((*one.keys[:-1], near), one.keys[-1])
        return meant

    def _explain(self, keys: Keys, group: list[_Found]) -> None:
        # Of the forms that a value may have, the one that says more than which kind of value it takes.
        group = [one for one in group if one.item["type"] == "value_error"] or group
        item = group[0].item
        match item["type"]:
            case "extra_forbidden":
                known = [
                    name for one in group for section in one.sections for name in keys_of_section(section)
                ]
                self.add(keys, f"unknown key{did_you_mean(str(keys[-1]), known)}")
            case "missing":
                self.add(keys, "missing")
            case "value_error":
                for one in group:
                    for line in str(one.item["ctx"]["error"]).splitlines():
                        self.add(keys, line)
            case "model_operation":
                self.add(keys, _operation(item))
            case "union_tag_not_found":
                self.add((*keys, _tag(item)), "missing")
            case "union_tag_invalid":
                self.add((*keys, _tag(item)), in_words(item) or item["msg"])
            case _:
                items = [one.item for one in group]
                words = together_in_words(items) if len(items) > 1 else in_words(item)
                for text in [words] if words else [one["msg"] for one in items]:
                    self.add(keys, text)

    def _mend(self, one: _Found, renamed: dict[Keys, Any]) -> bool:
        """Read a wrong entry as what was meant; return whether that is known."""
        keys, value = one.keys, one.item.get("input")
        match one.item["type"]:
            case "extra_forbidden":
                around = _at(self.data, keys[:-1])
                meant = [new for new, old in renamed.items() if (*new[:-1], old) == keys]
                if meant:
                    self._rename(keys, meant[0][-1])
                else:
                    around.pop(keys[-1], None)
                return True
            case "model_operation":
                old, new = _nearest_operation(value)
                if new:
                    self._rename((*keys, old), new)
                return bool(new)
            case "union_tag_invalid":
                near = closest(str(one.item["ctx"]["tag"]), choices(one.item))
                if near and isinstance(around := _at(self.data, keys), dict):
                    around[_tag(one.item)] = near
                    return True
        return False

    def _rename(self, keys: Keys, name: str) -> None:
        around = _at(self.data, keys[:-1])
        items = [(name if key == keys[-1] else key, value) for key, value in around.items()]
        around.clear()
        around.update(items)
        new = (*keys[:-1], name)
        for old, line in list(self.lines.items()):
            if old[: len(keys)] == keys:
                self.lines.setdefault((*new, *old[len(keys) :]), line)

    def meaning(self, left: list[_Found]) -> None:
        """Report what is wrong with what entries mean together, where each of these has the right form."""
        models = self.data.get("models")
        whole = {"models", "release"}  # without which nothing has a meaning
        if not isinstance(models, dict) or not models or any(one.keys in {(), ("models",)} for one in left):
            return
        # Nothing can name a model by what is no name, so there is no need for one in its place.
        unnamed = {name for name in models if not re.fullmatch(NAME_PATTERN, name)}
        for name in unnamed:
            del models[name]
        if not models:
            return
        left = [one for one in left if one.keys[:1] != ("models",) or one.keys[1] not in unnamed]
        parts = {one.keys[:2] if one.keys[0] == "models" else one.keys[:1] for one in left}
        rest = {}
        for keys in sorted(parts, key=str):
            wrong = [one.keys[2:] for one in left if one.keys[:2] == keys]
            if keys[0] == "models" and (entry := _pruned(_at(self.data, keys), wrong)) is not None:
                rest[keys[1]] = entry
                continue
            for at, name in named_in(_at(self.data, keys), keys):
                if name not in models:
                    self.add(at, f"no model is named {name!r}{did_you_mean(name, models)}")
        release = self.data.get("release")
        for keys in parts:
            if keys[0] == "models":
                models[keys[1]] = rest.get(keys[1], _STAND_IN)
            elif keys[0] not in whole:
                self.data.pop(keys[0], None)
        if ("release",) in parts:
            named = release.get("model") if isinstance(release, dict) else None
            self.data["release"] = {
                "model": named if isinstance(named, str) and named in models else next(iter(models)),
                **_RELEASE,
            }
        for item in self.errors(missing=frozenset(".".join(map(str, keys)) for keys in parts)):
            if item["type"] == "value_error" and not item["loc"]:
                for line in str(item["ctx"]["error"]).splitlines():
                    keys = keys_of(line, self.data)
                    if not any(_touch(keys, one.keys) for one in left):
                        self.add(keys, line.removeprefix(f"{'.'.join(map(str, keys))}: "))


def problems_of(
    data: dict[str, Any], kind: type[Section], lines: dict[Keys, int]
) -> tuple[list[tuple[str, Keys]], dict[Keys, int], int]:
    """Return all problems of a recipe or a suite.

    Args:
        data: Its content.
        kind: What it should be.
        lines: The line of each entry, by its keys.

    Returns:
        Each problem with the keys that lead to it; the lines, also of keys that were meant by others; and how many more problems
        there are, if these are many.
    """
    mending = _Mending(deepcopy(data), dict(lines), kind)
    left = mending.form()
    if kind is Recipe and not mending.more:
        mending.meaning(left)
    named = [
        (text if _begins(text, keys) else f"{'.'.join(map(str, keys))}: {text}" if keys else text, keys)
        for keys, text in mending.problems
    ]
    return named, mending.lines, mending.more


def _touch(keys: Keys, wrong: Keys) -> bool:
    """Return whether a problem of a model may follow from what is wrong with its form: it is about that, or what it is part of."""
    common = min(len(keys), len(wrong))
    return len(keys) > 1 and keys[:common] == wrong[:common]


def _begins(text: str, keys: Keys) -> bool:
    """Return whether a message names its place itself, as those do that are about the whole recipe."""
    return bool(keys) and text.startswith((f"{keys[0]}.", f"{keys[0]}:"))


def _grouped(found: list[_Found]) -> dict[Keys, list[_Found]]:
    """Return what was found by its keys; of a value with several forms, what is wrong inside of the one that it has."""
    groups: dict[Keys, list[_Found]] = {}
    for one in found[: limits.PROBLEMS]:
        groups.setdefault(one.keys, []).append(one)
    return {
        keys: group
        for keys, group in groups.items()
        if not (
            all(one.item["type"].endswith("_type") for one in group)
            and any(other[: len(keys)] == keys and len(other) > len(keys) for other in groups)
        )
    }


def _tag(item: ErrorDetails) -> str:
    return str(item["ctx"]["discriminator"]).strip("'")


def _operation(item: ErrorDetails) -> str:
    """Return what is wrong with a model that is not made in exactly one way."""
    value, words = item.get("input"), item["msg"]
    if not isinstance(value, dict):
        return f"{words} (found {shown(value)})"
    several = [name for name in OPERATIONS if name in value]
    if several:
        return f"{words} (found {' and '.join(several)})"
    old, new = _nearest_operation(value)
    hint = f"; did you mean {new!r} by {old!r}?" if new else ""
    if not new and (method := next(filter(None, (closest(str(key), METHODS) for key in value)), None)):
        hint = f"; did you mean `merge: {{method: {method}, ...}}`?"
    return f"{words} (found {shown(value)}){hint}"


def _nearest_operation(value: Any) -> tuple[str, str | None]:
    """Return the key of a model that is nearest to a way of making models, and that way; None if none is near, or one is there."""
    if not isinstance(value, dict) or any(name in value for name in OPERATIONS):
        return "", None
    near = [(str(key), found) for key in value if (found := closest(str(key), OPERATIONS))]
    return max(near, key=lambda pair: SequenceMatcher(None, *pair).ratio(), default=("", None))


def _pruned(entry: Any, wrong: list[Keys]) -> Any:
    """Return a model's entry without what has a wrong form in it; None if the rest is no model, or would mean something else.

    Args:
        entry: The entry as it is written.
        wrong: The keys that lead to what is wrong, inside of it.
    """
    entry = deepcopy(entry)
    if not isinstance(entry, dict) or any(not keys or keys[-1] in _STEERING for keys in wrong):
        return None
    entry.pop("search", None)  # whose values are compared with those that are left out
    for keys in wrong:
        around = _at(entry, keys[:-1])
        if isinstance(around, list):
            return None
        if around is not None:
            around.pop(keys[-1], None)
    try:
        TypeAdapter(Model).validate_python(entry)
    except ValidationError:
        return None
    return entry


def _at(value: Any, keys: Keys) -> Any:
    for key in keys:
        value = value[key] if isinstance(value, list) or key in value else None
        if value is None:
            return None
    return value
