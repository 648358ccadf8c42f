"""Reading recipes: parsing and checking YAML. All problems are reported together, each with its file and key."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from herdbook import limits, yamlio
from herdbook.errors import RecipeError
from herdbook.humanize import did_you_mean
from herdbook.recipe.evaluate import Suite
from herdbook.recipe.forms import in_words
from herdbook.recipe.section import Section
from herdbook.recipe.whole import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails

Whole = TypeVar("Whole", bound=Section)


def load(path: Path) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The recipe's YAML file.

    Raises:
        RecipeError: If the file cannot be read, is not YAML, or does not fit the schema; all problems are named.
    """
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Return a file's text. Raises RecipeError if it cannot be read."""
    try:
        limits.check_size(
            path.stat().st_size, 4 * limits.YAML_CHARACTERS
        )  # of UTF-8, four bytes at most for each
        return path.read_text(encoding="utf-8")
    except limits.OverLimitError as error:
        raise RecipeError(f"refused: it {error}", str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)
        ) from error


def parse(text: str, file: str = "recipe") -> Recipe:
    """Parse and check a recipe's text; ``file`` is its name in errors. Raises as ``load`` does."""
    return _parse(text, Recipe, "a recipe: expected a mapping with `models` and `release`", file)


def parse_suite(text: str, name: str) -> Suite:
    """Parse and check a suite's text; ``name`` is its file's name in errors. Raises as ``load`` does."""
    return _parse(text, Suite, "a suite: expected a mapping with `suite`, `title` and `tasks`", name)


def _parse(text: str, kind: type[Whole], expected: str, file: str) -> Whole:
    try:
        data = yamlio.load(text)
    except yamlio.YamlError as error:
        raise RecipeError(str(error), file) from error
    if not isinstance(data, dict):
        raise RecipeError(f"is not {expected}", file)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        lines = [line for item in found[: limits.PROBLEMS] for line in _explain(item, data, kind)]
        more = len(found) - limits.PROBLEMS
        raise RecipeError([*lines, *([f"and {more:,} more problems"] if more > 0 else [])], file) from error


def _explain(item: ErrorDetails, data: dict[str, Any], kind: type[Section]) -> list[str]:
    """Turn one of pydantic's errors into lines that name the key and the problem."""
    where, sections = _location(item, data, kind)
    key = ".".join(map(str, where))
    if item["type"] == "extra_forbidden":
        known = [name for section in sections for name in _keys(section)]
        return [f"{key}: unknown key{did_you_mean(str(where[-1]), known)}"]
    if item["type"] == "default_factory_not_called":
        return []  # it follows from another error
    if item["type"] == "missing":
        return [f"{key}: missing"]
    if item["type"] == "value_error":
        message = str(item["ctx"]["error"])
        return [f"{key}: {message}"] if key else message.splitlines()
    if words := in_words(item):
        return [f"{key}: {words}"]
    value = item.get("input")
    shown = f" (found {value!r})" if isinstance(value, str | int | float) else ""
    return [f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}{shown}"]


def _location(
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
        field = _keys(kind).get(str(part))
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


def _keys(section: type[Section]) -> dict[str, str]:
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


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe, for editors."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Herdbook recipe", **schema}
