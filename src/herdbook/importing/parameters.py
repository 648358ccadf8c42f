"""Parameters of dense merges: numbers, gradients and filters, at mergekit's levels and with its precedence.

Source: mergekit 0.1.5, ``config.py`` and ``parameter_resolver.py``. A tensor gets the value of the first level that has one
for it: the model's in its slice, the slice's, the module's, that of the whole configuration. So the filters of all levels,
one after the other, are one list of filters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.importing.scalars import boolean, number, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from herdbook.importing.value import Value
    from herdbook.recipe.mergekit_methods import Kind

READERS = {"number": number, "integer": whole_number, "boolean": boolean}
EVERYTHING = (None, "*")  # filters that match every tensor
Scalar = float | bool


@dataclass(frozen=True)
class Condition:
    """A value for some tensors.

    Args:
        filter: A part of the tensors' names; None for all.
        value: The value; or a gradient, spread over the layers.
    """

    filter: str | None
    value: Scalar | list[Scalar]


def parameter(
    levels: Iterable[Value | None], name: str, kind: Kind, *, shares: bool = False
) -> list[Condition]:
    """Return the conditions of a parameter of which the first that matches a tensor's name counts; none if it is not given.

    Args:
        levels: The levels that may give it, the one with the highest precedence first.
        name: Its name.
        kind: What its values are.
        shares: Whether the recipe language has only values from 0 to 1.
    """
    conditions: list[Condition] = []
    for level in levels:
        given = None if level is None else level.get(name)
        new = [] if given is None else _conditions(given, kind)
        for value in _numbers(new) if shares else ():
            if given is not None and not 0 <= value <= 1:
                given.refuse(f"{value:g} is not between 0 and 1")
        conditions += new
        if conditions and conditions[-1].filter is None:
            break
    return conditions


def _numbers(conditions: Sequence[Condition]) -> Iterator[Scalar]:
    for one in conditions:
        yield from one.value if isinstance(one.value, list) else [one.value]


def in_recipe(conditions: Sequence[Condition]) -> Any:
    """Return a parameter as a recipe and mergekit write it: a value, a gradient, or a list of filters."""
    if conditions[0].filter is None:
        return conditions[0].value
    return [
        {"value": one.value} if one.filter is None else {"filter": one.filter, "value": one.value}
        for one in conditions
    ]


def _conditions(given: Value, kind: Kind) -> list[Condition]:
    content = given.content
    if isinstance(content, dict):
        return _condition(given, kind)
    if isinstance(content, list) and any(isinstance(entry, dict) for entry in content):
        found: list[Condition] = []
        for index in range(len(content)):
            entry = given.child(index)
            if entry.is_mapping():
                found += _condition(entry, kind)
            if found and found[-1].filter is None:
                break  # what follows is never reached
        return found
    value = _scalar_or_gradient(given, kind)
    return [] if value is None else [Condition(None, value)]


def _condition(entry: Value, kind: Kind) -> list[Condition]:
    entry.unknown(("filter", "value"), "mergekit")
    name, given = entry.content.get("filter"), entry.required("value")
    if name is not None and not isinstance(name, str):
        entry.child("filter").refuse(f"{name!r} is not a part of a tensor's name")
        return []
    value = None if given is None else _scalar_or_gradient(given, kind)
    return [] if value is None else [Condition(None if name in EVERYTHING else name, value)]


def _scalar_or_gradient(given: Value, kind: Kind) -> Any:
    if not isinstance(given.content, list):
        return READERS[kind](given)
    if not given.content:
        given.refuse("the list is empty")
        return None
    values = [READERS[kind](given.child(index)) for index in range(len(given.content))]
    if None in values:
        return None
    return values[0] if len(values) == 1 else values
