"""Where pydantic's errors are in a recipe: the keys that lead to each, and the sections that may contain the last of them."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from herdbook.recipe.section import Section

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def location(
    item: ErrorDetails, data: dict[str, Any], whole: type[Section]
) -> tuple[list[int | str], list[type[Section]]]:
    """Return the keys that lead to an error, and the sections that may contain the last of them.

    Between the keys, pydantic's location also names members of unions, by their tag or their type. No tag is a key that a
    recipe can have at the same position, so a name that the recipe does not contain there is not a key.
    """
    where: list[int | str] = []
    value: Any = data
    parents: list[Any] = []
    types: list[Any] = [whole]
    for position, part in enumerate(item["loc"], start=1):
        exists = isinstance(value, dict) and part in value
        exists = exists or (isinstance(value, list) and isinstance(part, int) and part < len(value))
        if exists or (item["type"] == "missing" and position == len(item["loc"])):
            where.append(part)
            value = value[part] if exists else None
            parents, types = types, [inner for kind in types for inner in _inside(kind, part)]
        else:
            types = [kind for kind in types if _is_tagged(kind, str(part))] or types
    return where, [kind for kind in parents if _is_section(kind)]


def _inside(kind: Any, part: int | str) -> list[Any]:
    """Return the types, with unions split into their members, of the value at a key or index inside a type."""
    if _is_section(kind):
        field = keys_of_section(kind).get(str(part))
        return _members(kind.model_fields[field].annotation) if field else []
    if get_origin(kind) is dict:
        return _members(get_args(kind)[1])
    return _members(get_args(kind)[0]) if get_origin(kind) is list else []


def _members(kind: Any) -> list[Any]:
    """Return the members of a union, also of nested ones; the type itself if it is not a union."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        return [member for argument in get_args(kind) for member in _members(argument)]
    return [kind]


def keys_of_section(section: type[Section]) -> dict[str, str]:
    """Return the keys of a section in a recipe, each with the name of its field."""
    return {field.alias or name: name for name, field in section.model_fields.items()}


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _is_tagged(kind: Any, tag: str) -> bool:
    """Return whether a member of a union has a tag: its name, or a value that one of its keys must have."""
    if not _is_section(kind):
        return False
    literals = (get_args(field.annotation) for field in kind.model_fields.values())
    return kind.__name__ == tag or any(tag in values for values in literals)
