"""Reading recipes: parsing and checking YAML. All problems are reported together, each with its file and key."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from herdbook import limits, yamlio
from herdbook.errors import RecipeError
from herdbook.recipe.evaluate import Suite
from herdbook.recipe.mending import problems_of
from herdbook.recipe.places import in_order, lines_of
from herdbook.recipe.section import Section
from herdbook.recipe.whole import Model, Recipe

if TYPE_CHECKING:
    from pathlib import Path

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


def readable_models(text: str) -> dict[str, Section]:
    """Return the models of a recipe whose own entries have the right form, whatever is wrong with the rest."""
    try:
        models = yamlio.load(text)["models"].items()
    except (yamlio.YamlError, LookupError, TypeError, AttributeError):
        return {}
    found: dict[str, Section] = {}
    for name, entry in models:
        with suppress(ValidationError):
            found[name] = _any_model().validate_python(entry)
    return found


def readable_section(text: str, key: str) -> Any:
    """Return a section of a recipe if it has the right form, whatever is wrong with the rest; else None."""
    try:
        found = yamlio.load(text)[key]
        form: Any = Recipe.model_fields[key].annotation
        return TypeAdapter(form).validate_python(found)
    except (yamlio.YamlError, LookupError, TypeError, ValidationError):
        return None


@cache
def _any_model() -> TypeAdapter[Section]:
    """Return what reads a model's entry; making it takes longer than reading a recipe."""
    return TypeAdapter(Model)


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
        found, lines, more = problems_of(data, kind, lines_of(text))
        problems, at = in_order(found, lines)
        more += max(0, len(problems) - limits.PROBLEMS)
        if more > 0:
            problems[limits.PROBLEMS :], at[limits.PROBLEMS :] = [f"and {more:,} more problems"], [None]
        raise RecipeError(problems, file, at) from error


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe, for editors; it is not to be changed."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Herdbook recipe", **schema}
