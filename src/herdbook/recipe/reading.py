"""Reading recipes: YAML in, a checked recipe out; all problems at once, each with the file and the key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from herdbook import yamlio
from herdbook.errors import RecipeError
from herdbook.humanize import did_you_mean
from herdbook.recipe.laser import RULE_KEYS, Calibration, Guard, Select
from herdbook.recipe.merge import METHODS, Filtered, MergekitModel, Slice, Sparsified, Weighted
from herdbook.recipe.moe import Expert, Mixture
from herdbook.recipe.publish import Publish, Waiver
from herdbook.recipe.release import Claim, Evaluate, Leaderboard, Quantize, Quote, Release, Routing
from herdbook.recipe.section import Section
from herdbook.recipe.whole import OPERATIONS, Recipe

if TYPE_CHECKING:
    from pathlib import Path


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
        raise RecipeError([line for item in error.errors() for line in _explain(item)], file) from error


def _explain(item: Any) -> list[str]:
    """Turn one of pydantic's errors into lines a person can act on."""
    tags = set(OPERATIONS) | {"constrained-str", "function-plain", "one", "several", "word", "count"}
    tags |= set(RULE_KEYS.values())
    where = list(item["loc"])
    if where[:1] == ["models"] and len(where) > 2 and where[2] in OPERATIONS:
        del where[2]  # the tag of the union, which is no key of the recipe
    if where[2:3] == ["merge"] and len(where) > 3 and where[3] in METHODS:
        del where[3]  # likewise
    where = [part for index, part in enumerate(where) if not (index > 2 and _is_union_tag(part, tags))]
    key = ".".join(str(part) for part in where if part != "[key]")
    if item["type"] == "extra_forbidden":
        return [f"{key}: unknown key{did_you_mean(str(where[-1]), _known_keys(item['loc']))}"]
    if item["type"] == "missing":
        return [f"{key}: missing"]
    if item["type"] == "value_error":
        message = str(item["ctx"]["error"])
        return [f"{key}: {message}"] if key else message.splitlines()
    value = item.get("input")
    shown = f" (found {value!r})" if isinstance(value, str | int | float) else ""
    return [f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}{shown}"]


def _is_union_tag(part: Any, tags: set[str]) -> bool:
    return isinstance(part, str) and (
        part in tags - set(OPERATIONS)
        or bool(re.match(r"^(literal|list|constrained|int|float|nullable)\b", part))
    )


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    """Return the keys that are known where ``loc`` (pydantic's location of an unknown key) points."""
    if len(loc) == 1:
        return list(Recipe.model_fields)
    if loc[0] == "models" and len(loc) > 2:
        inside: dict[str, type[Section]] = {"experts": Expert, "select": Select, "guard": Guard}
        found = next((section for key, section in inside.items() if key in loc[3:-1]), None)
        if found:
            return list(found.model_fields)
        if "merge" in loc[3:-1]:
            return _known_in_merge(loc)
        return list((Mixture if "moe" in loc[3:-1] else OPERATIONS.get(str(loc[2]), Section)).model_fields)
    sections: dict[str, type[Section]] = {
        "release": Quote if "quote" in loc[1:-1] else Release,
        "evaluate": Evaluate,
        "quantize": Quantize,
        "routing": Routing,
        "leaderboards": Leaderboard,
        "calibration": Calibration,
        "claims": Claim,
        "publish": Waiver if len(loc) > 2 else Publish,
    }
    return list(sections.get(str(loc[0]), Section).model_fields)


def _known_in_merge(loc: tuple[Any, ...]) -> list[str]:
    method = next((part for part in loc if part in METHODS), None)
    section = METHODS.get(str(method), Section)
    if loc[-2:-1] and isinstance(loc[-2], int) and "models" in loc[3:]:
        plain = {"linear": Weighted, "task_arithmetic": Weighted}
        kinds: dict[str, type[Section]] = {
            **dict.fromkeys(("ties", "dare_linear", "dare_ties"), Sparsified),
            **plain,
        }
        section = kinds.get(str(method), MergekitModel)
    elif "slices" in loc[3:]:
        section = Slice
    elif "Filtered" in loc:
        section = Filtered
    return [field.alias or name for name, field in section.model_fields.items()]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe, for editors."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Herdbook recipe", **schema}
