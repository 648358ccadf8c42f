"""Pinning what a card is made of beside the recipe: templates of its own, and its picture."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.escape import FILTERS
from herdbook.humanize import did_you_mean
from herdbook.lock.local import pin_local
from herdbook.recipe.card import SECTION_PATTERN, SECTIONS, TEMPLATE_SUFFIX
from herdbook.sources.card_template import problem

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.lock.file import LockedFile
    from herdbook.recipe import Recipe

MOST_IMAGE_BYTES = 5_000_000
# The first bytes of the formats that browsers draw without running anything.
_STARTS = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpg": rb"\xff\xd8\xff",
    "jpeg": rb"\xff\xd8\xff",
    "webp": rb"RIFF....WEBP",
    "gif": rb"GIF8[79]a",
}


def pin_templates(recipe: Recipe, beside: Path) -> dict[str, LockedFile]:
    """Pin the templates of a recipe's card, by the section that each is of.

    Raises:
        RecipeError: If a section has no template, or a template does what none may.
    """
    where = recipe.card.templates
    found: dict[str, LockedFile] = {}
    problems = []
    if where is not None:
        folder = beside / where
        if not folder.is_dir():
            raise RecipeError(f"card.templates: the folder {folder} does not exist")
        for path in sorted(folder.glob(f"*{TEMPLATE_SUFFIX}")):
            name = path.name.removesuffix(TEMPLATE_SUFFIX)
            if not re.fullmatch(SECTION_PATTERN, name):
                problems.append(
                    f"card.templates: {path.name}: a section's name has small letters, digits, - and _ alone"
                )
            elif name not in recipe.card.sections:
                problems.append(f"card.templates: {path.name}: card.sections does not name {name!r}")
            else:
                found[name] = pin_local(beside, f"{where.rstrip('/')}/{path.name}", "card.templates")
                wrong = _problem(path)
                problems += [f"card.templates: {path.name}: {wrong}"] if wrong else []
    for index, name in enumerate(recipe.card.sections):
        if name not in SECTIONS and name not in found:
            advice = did_you_mean(name, [*SECTIONS, *found])
            problems.append(
                f"card.sections.{index}: no section is named {name!r}; one of your own needs card.templates with "
                f"{name}{TEMPLATE_SUFFIX}{advice}"
            )
    if problems:
        raise RecipeError(problems)
    return found


def _problem(path: Path) -> str | None:
    try:
        return problem(path.read_text(encoding="utf-8"), FILTERS)
    except UnicodeDecodeError:
        return "is not UTF-8"


def pin_image(recipe: Recipe, beside: Path) -> LockedFile | None:
    """Pin the picture of a recipe's card, if it has one. Raises RecipeError if it is not the picture that its name promises."""
    image = recipe.release.image
    if image is None:
        return None
    pinned = pin_local(beside, image.file, "release.image.file")
    if pinned.size_bytes > MOST_IMAGE_BYTES:
        raise RecipeError(f"release.image.file: {image.file} has more than {MOST_IMAGE_BYTES:,} bytes")
    with (beside / image.file).open("rb") as file:
        start = file.read(16)
    suffix = image.file.rpartition(".")[2]
    if not re.match(_STARTS[suffix], start, re.DOTALL):
        raise RecipeError(f"release.image.file: {image.file} is not a picture in the format {suffix.upper()}")
    return pinned
