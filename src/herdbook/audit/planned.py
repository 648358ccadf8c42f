"""The plan of a dense merge of anyone: what `herdbook import` makes of its configuration, with the sources as they are now.

Each reference of the configuration is opened by the rules of an audit, so that a card cannot make Herdbook read anything on
this machine. Nothing is fetched: the plan is made from configurations and headers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from herdbook.architectures.rows import is_embeddings
from herdbook.errors import RecipeError, UnverifiedError
from herdbook.faults import first_in_words
from herdbook.importing.convert import convert
from herdbook.importing.finding import find
from herdbook.importing.steps import Steps, steps_of
from herdbook.importing.value import Notes
from herdbook.lock import Lock, LockedSource, LockedTensor
from herdbook.lock.file import LockedFile
from herdbook.lock.union import SideFilesOf, make_vocabularies
from herdbook.plan import make
from herdbook.recipe import Hub
from herdbook.recipe.reading import parse
from herdbook.sources.select import side_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.audit.model import Model
    from herdbook.plan import Plan
    from herdbook.recipe import Recipe

# Repositories with this owner stand for the references of the configuration while it is imported.
STAND_IN = "audited-source"


@dataclass(frozen=True)
class References:
    """The models that a configuration needs besides those of its own steps.

    Args:
        text: The configuration, or the card that contains it.
        where: Its name in messages.
        paths: The paths of the models, as the configuration names them.
    """

    text: str
    where: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class PlannedMerge:
    """The plan of a merge, and the models that it is made from.

    Args:
        plan: The plan.
        models: The sources, by their names in the plan's recipe.
        references: The references of the configuration that name them, by the same names.
    """

    plan: Plan
    models: dict[str, Model]
    references: dict[str, str]

    def title(self, model: str) -> str:
        """Return what the configuration calls a model of the plan; what a step makes has the plan's name."""
        return self.references.get(model, f"the step {model!r}")


def references_of(text: str, where: str) -> References:
    """Return what a configuration needs.

    Raises:
        UnverifiedError: If an adapter is folded into one of the models.
    """
    notes = Notes()
    steps = Steps(steps_of(find(text, notes).found), notes)
    paths = []
    for step in steps.in_order():
        for reference in step.configuration.references:
            if reference.lora:
                raise UnverifiedError(
                    f"{reference}: includes an adapter, so its bytes are not those of any source"
                )
            if steps.match(reference.model, step) is None:
                paths.append(reference.model.path)
    return References(text, where, tuple(dict.fromkeys(paths)))


def imported_recipe(needed: References) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe that a configuration becomes, and for each of its sources the reference in the configuration.

    Raises:
        RecipeError: If it cannot be imported.
    """
    stand_ins = {f"{STAND_IN}/{number}": path for number, path in enumerate(needed.paths)}
    mapping = {path: stand_in for stand_in, path in stand_ins.items()}
    imported = convert(needed.text, Path(needed.where), "Audited", "unknown", Path(), mapping)
    recipe = parse(imported.text, needed.where)
    references = {}
    for name, model in recipe.models.items():
        if isinstance(model, Hub):
            stand_in, at, revision = model.hub.partition("@")
            references[name] = f"{stand_ins[stand_in]}{at}{revision}"
    return recipe, references


def planned(recipe: Recipe, models: Mapping[str, Model], references: Mapping[str, str]) -> PlannedMerge:
    """Return the plan of a merge.

    Args:
        recipe: The recipe that its configuration becomes.
        models: The sources, by their names in the recipe.
        references: The references of the configuration that name them, by the same names.

    Raises:
        UnverifiedError: If a source cannot be planned with.
        SourceError: If a tokenizer that is needed cannot be read.
        RecipeError: If the merge cannot be computed as it is configured.
    """
    sources = {name: _pinned(references[name], model) for name, model in models.items()}
    side = {
        name: SideFilesOf(sources[name].members, model.subject.read, _rows(model))
        for name, model in models.items()
    }
    lock = Lock(sources=sources, vocabularies=make_vocabularies(recipe, side))
    return PlannedMerge(make(recipe, lock, Path("recipe.yaml")), dict(models), dict(references))


def _rows(model: Model) -> int | None:
    return next((piece.shape[0] for name, piece in model.pieces.items() if is_embeddings(name)), None)


def _pinned(reference: str, model: Model) -> LockedSource:
    """Return a model as a lock has it.

    A file's digest identifies its tensors in the plan. Files of a folder get one of their place, since nothing but their
    identity matters here, and hashing them would read them as a whole.
    """
    subject = model.subject
    names = {piece.file for piece in model.pieces.values()}
    members = side_files(dict.fromkeys(subject.files))
    files = []
    for name in sorted({*names, *members}):
        entry = subject.files[name]
        place = hashlib.sha256(f"{subject.name}/{name}".encode()).hexdigest()
        sha256 = entry.sha256 or (None if entry.git_blob else place)
        files.append(
            LockedFile(name=name, size_bytes=entry.size_bytes, sha256=sha256, git_blob=entry.git_blob)
        )
    try:
        return LockedSource(
            asked={"hub": reference},
            uri=subject.uri or f"folder:{subject.name}",
            revision="",
            weights="safetensors",
            files=tuple(files),
            members=tuple(members),
            tensors=tuple(
                LockedTensor(name=name, dtype=piece.dtype, shape=piece.shape, file=piece.file)
                for name, piece in model.pieces.items()
            ),
            config=model.config,
        )
    except ValidationError as error:
        raise UnverifiedError(f"{reference}: {first_in_words(error)}") from error


def reason(error: Exception) -> str:
    """Return why a merge could not be planned, in one sentence."""
    if isinstance(error, RecipeError) and len(error.problems) > 1:
        return f"{error.problems[0]} (and {len(error.problems) - 1} more problems)"
    return error.problems[0] if isinstance(error, RecipeError) else str(error)
