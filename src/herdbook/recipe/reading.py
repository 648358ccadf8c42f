"""Reading recipes: YAML in, a checked recipe out; all problems at once, each with the file and the key."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from herdbook import yamlio
from herdbook.errors import RecipeError
from herdbook.humanize import did_you_mean
from herdbook.recipe.section import Section
from herdbook.recipe.whole import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails


def load(path: Path) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The recipe's YAML file.

    Raises:
        RecipeError: With all problems at once, if the file cannot be read, is not YAML, or does not fit the schema.
    """
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Return a file's text. Raises RecipeError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)
        ) from error


def parse(text: str, file: str = "recipe") -> Recipe:
    """Read and check a recipe's text; ``file`` is named in errors. Raises as ``load`` does."""
    try:
        data = yamlio.load(text)
    except yamlio.YamlError as error:
        raise RecipeError(str(error), file) from error
    if not isinstance(data, dict):
        raise RecipeError("is no recipe: expected a mapping with `models` and `release`", file)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError([line for item in error.errors() for line in _explain(item, data)], file) from error


def _explain(item: ErrorDetails, data: dict[str, Any]) -> list[str]:
    """Turn one of pydantic's errors into lines a person can act on."""
    where, sections = _place(item, data)
    key = ".".join(map(str, where))
    if item["type"] == "extra_forbidden":
        known = [name for section in sections for name in _keys(section)]
        return [f"{key}: unknown key{did_you_mean(str(where[-1]), known)}"]
    if item["type"] == "missing":
        return [f"{key}: missing"]
    if item["type"] == "value_error":
        message = str(item["ctx"]["error"])
        return [f"{key}: {message}"] if key else message.splitlines()
    value = item.get("input")
    shown = f" (found {value!r})" if isinstance(value, str | int | float) else ""
    return [f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}{shown}"]


def _place(item: ErrorDetails, data: dict[str, Any]) -> tuple[list[int | str], list[type[Section]]]:
    """Return the keys that lead to an error, and the sections that can stand around the last of them.

    Between the keys, pydantic's location names the members of unions: by their tag, or by their type. No tag is a key
    that a recipe can have at its place, so what the recipe has not is none of its keys.
    """
    where: list[int | str] = []
    here: Any = data
    around: list[Any] = []
    types: list[Any] = [Recipe]
    for place, part in enumerate(item["loc"], start=1):
        held = isinstance(here, dict) and part in here
        held = held or (isinstance(here, list) and isinstance(part, int) and part < len(here))
        if held or (item["type"] == "missing" and place == len(item["loc"])):
            where.append(part)
            here = here[part] if held else None
            around, types = types, [inner for one in types for inner in _inside(one, part)]
        else:
            types = [one for one in types if _is_tagged(one, str(part))] or types
    return where, [one for one in around if _is_section(one)]


def _inside(kind: Any, part: int | str) -> list[Any]:
    """Return the types, unions taken apart, that can stand at a key or place inside a type."""
    if _is_section(kind):
        field = _keys(kind).get(str(part))
        return _members(kind.model_fields[field].annotation) if field else []
    if get_origin(kind) is dict:
        return _members(get_args(kind)[1])
    return _members(get_args(kind)[0]) if get_origin(kind) is list else []


def _members(kind: Any) -> list[Any]:
    """Return the members of a union, of whatever depth; the type itself if it is none."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        return [member for one in get_args(kind) for member in _members(one)]
    return [kind]


def _keys(section: type[Section]) -> dict[str, str]:
    """Return the keys that a section has in a recipe, each with the name of its field."""
    return {field.alias or name: name for name, field in section.model_fields.items()}


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _is_tagged(kind: Any, tag: str) -> bool:
    """Say whether a member of a union has a tag: its name, or a value that one of its keys must have."""
    if not _is_section(kind):
        return False
    literals = (get_args(field.annotation) for field in kind.model_fields.values())
    return kind.__name__ == tag or any(tag in values for values in literals)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe, for editors."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Herdbook recipe", **schema}
