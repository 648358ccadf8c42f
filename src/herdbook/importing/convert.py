"""Recipes from mergekit's configurations, in files of their own or in models' cards.

What a configuration leaves open is assumed, and each assumption is noted where it matters: revisions, the version of mergekit,
the license. All that is wrong is reported at once, with line and key.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from herdbook import recipe as recipes
from herdbook.errors import RecipeError
from herdbook.importing.configuration import DenseConfiguration, MixtureConfiguration
from herdbook.importing.dense import dense
from herdbook.importing.finding import find
from herdbook.importing.mixtures import mixture
from herdbook.importing.models import Models, slug
from herdbook.importing.naming import by_files, by_folder, plain
from herdbook.importing.steps import Steps, steps_of
from herdbook.importing.value import Notes
from herdbook.importing.writing import recipe_text
from herdbook.recipe.hub_values import Licensed
from herdbook.recipe.reading import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.importing.finding import Text
    from herdbook.importing.naming import Called
    from herdbook.importing.references import Place
    from herdbook.importing.steps import Step

UNKNOWN = "unknown"  # the Hub's identifier of an unknown license


@dataclass(frozen=True)
class Imported:
    """An imported recipe.

    Args:
        text: The recipe.
        content: The same as a mapping.
        assumed: What is assumed, one line each.
    """

    text: str
    content: dict[str, Any]
    assumed: list[str]


def import_recipe(
    path: Path,
    *,
    name: str | None = None,
    license_: str | None = None,
    relative_to: Path = Path(),
    mapping: Mapping[str, str] | None = None,
    output: Path | None = None,
    folder: str = "",
) -> Imported:
    """Convert a mergekit configuration, or several that build on each other, to a recipe.

    Args:
        path: The configuration, or a card that contains it.
        name: The release's name; taken from the card, the step, the files or the folder if None.
        license_: The release's license; taken from the card if None.
        relative_to: The folder that the recipe will be written to; paths of local models are made relative to it.
        mapping: What the configuration's names of models stand for: repositories of the Hub, or folders.
        output: The file that the recipe will be written to, if it is known: a release is named by it.
        folder: The name of a folder that a release is named by, whatever its files are called.

    Raises:
        RecipeError: If the file contains no configuration, or one that cannot be built; all that is wrong is named.
    """
    called = by_folder(path, folder) if folder else by_files(path, output)
    imported = convert(read_text(path), path, name, license_, relative_to, mapping or {}, called=called)
    # What the recipe language does not have is refused here, by the names of its keys.
    recipes.parse(imported.text, f"{path}, as a recipe")
    return imported


def convert(
    text: str,
    path: Path,
    name: str | None,
    license_: str | None,
    relative_to: Path,
    mapping: Mapping[str, str],
    *,
    called: Called | None = None,
    is_local: bool = True,
) -> Imported:
    """Convert a text as ``import_recipe`` does, without looking whether the recipe language has all that comes out.

    One that is not local was found elsewhere: it names no folders of this machine. ``called`` is the release's name if neither
    ``name`` nor the text says it; the folder's if None.
    """
    notes = Notes()
    try:
        found = find(text, notes)
    except RecipeError as error:
        raise RecipeError(error.problems, str(path)) from error
    steps = steps_of(found.found)
    models = Models(notes, path, relative_to, mapping, found.repositories, is_local)
    released = ""
    if steps:
        released = _add_steps(Steps(steps, notes, mapping), models, path)
        models.report()
    if notes.problems:
        raise RecipeError(sorted(notes.problems, key=_line), str(path))
    release = _release(found, steps, released, called or by_folder(path), name, license_, notes)
    recipe = {"models": models.entries, "release": release}
    assumed = [assumption.text for assumption in notes.assumptions]
    return Imported(recipe_text(recipe, notes.assumptions, path.name), recipe, assumed)


def _line(problem: str) -> float:
    match = re.match(r"line (\d+)", problem)
    return int(match[1]) if match else math.inf


def _add_steps(steps: Steps, models: Models, path: Path) -> str:
    """Add all steps that are needed to the models; return the name of the released one."""
    order = steps.in_order()
    models.reserved |= _words(order)
    names: dict[int, str] = {}
    for step in order:
        names[step.number] = models.reserve(slug(step.name) or _named_by(step, steps) or _default(step))

    for step in order:

        def made(place: Place, user: Step = step) -> str | None:
            match = steps.match(place, user)
            return None if match is None else names.get(match.number)

        models.made = made
        name = names[step.number]
        if isinstance(step.configuration, MixtureConfiguration):
            models.entries[name] = mixture(step.configuration, name, models, path)
        else:
            models.entries |= dense(step.configuration, name, models)
    return names[order[-1].number] if order else ""


def _words(order: list[Step]) -> set[str]:
    """Return words with which a recipe names the origin of tokens and templates, so that no model may have such a name."""
    words: set[str] = set()
    for step in order:
        one = step.configuration
        if isinstance(one, DenseConfiguration) and one.tokens:
            words |= {"union"} | ({"base"} if one.base and slug(one.base.model.last) != "base" else set())
        if isinstance(one, DenseConfiguration) and one.chat_template:
            words.add(slug(one.chat_template))
    return words


def _default(step: Step) -> str:
    return "mixture" if isinstance(step.configuration, MixtureConfiguration) else "merged"


def _named_by(step: Step, steps: Steps) -> str:
    """Return the name by which another step uses this one; empty if none does."""
    for user in steps.steps:
        for reference in user.configuration.references:
            match = steps.match(reference.model, user)
            if match is not None and match.number == step.number and user is not step:
                return slug(reference.model.last)
    return ""


def _release(
    found: Text,
    steps: list[Step],
    released: str,
    called: Called,
    name: str | None,
    license_: str | None,
    notes: Notes,
) -> dict[str, Any]:
    if name is None:
        card = plain(str(found.front_matter.get("model_name") or ""))
        step = next((plain(step.name) for step in steps if step.name and slug(step.name) == released), "")
        name = card or step or called.name or "Imported"
        origin = "the card" if card else "the configuration" if step else called.origin
        notes.assume(f"release.name: {name}, from {origin}", "release", "name")
    if license_ is None:
        licensed, assumed = _license_on(found.front_matter)
        notes.assume(assumed, "release", "license")
    else:
        licensed = {"license": license_}
    return {"model": released, "name": name, **licensed}


def _license_on(front_matter: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Return the keys of the license on a card, as a recipe has them, and the assumption that they make."""
    found = {key: str(front_matter[key]) for key in Licensed.model_fields if front_matter.get(key)}
    try:
        Licensed.model_validate(found)
    except ValidationError:
        stated = f"the card's, {found}, is not one that the Hub accepts; " if found else ""
        return {"license": UNKNOWN}, (
            f"release.license: {UNKNOWN}; {stated}it depends on the sources' licenses, which `herdbook lock` records"
        )
    link = found.get("license_link", "https:")
    file = (
        ""
        if link.startswith("https:")
        else f"; {link} is a file of the card's repository, so put its address here"
    )
    return found, f"release.license: {found['license']}, from the card{file}"
