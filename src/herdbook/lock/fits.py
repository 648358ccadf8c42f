"""Whether a lock fits its recipe: whether it pins, entry by entry, what the recipe requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.errors import LockError
from herdbook.lock.asked import asked_of, request, uri_of
from herdbook.lock.file import LockedFile, LockedHubFile
from herdbook.lock.format import lock_command
from herdbook.lock.imatrix import given_imatrix
from herdbook.recipe import SECTIONS, Adapter, Folder, Hub, Pypi, measured, search_of, tokenizer_of
from herdbook.recipe.card import TEMPLATE_SUFFIX
from herdbook.recipe.quantize import HubImatrix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.lock.lock import Lock
    from herdbook.lock.predecessor import LockedPredecessor
    from herdbook.lock.weights import LockedAdapter, LockedSource
    from herdbook.recipe import Evaluate, HubFile, Recipe
    from herdbook.recipe.quantize import GivenImatrix

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Misfit:
    """A place at which a lock does not pin what its recipe requests.

    Args:
        where: The place in the recipe.
        what: What is wrong with the lock at this place.
        expected: What the recipe requests.
        found: What the lock has.
    """

    where: str
    what: str
    expected: str
    found: str


def misfits(lock: Lock, recipe: Recipe) -> Iterator[Misfit]:
    """Yield where a lock does not pin what its recipe requests: entries, repositories, commits, versions, licenses."""
    for name, model in recipe.models.items():
        where = f"models.{name}"
        match model:
            case Hub() | Folder() | Pypi():
                yield from _misfits_of_source(where, model, lock.sources.get(name))
            case Adapter():
                yield from _misfits_of_adapter(where, model, lock.adapters.get(name))
        if tokenizer := tokenizer_of(model):
            wanted = request(tokenizer)
            made = lock.vocabularies[name].asked if name in lock.vocabularies else "no entry"
            if made != wanted:
                yield Misfit(f"{where}.tokenizer", "was made for another request", str(wanted), str(made))
    for name in lock.vocabularies:
        if name not in recipe.models or not tokenizer_of(recipe.models[name]):
            yield Misfit(
                f"models.{name}.tokenizer", "makes a vocabulary that is not requested", "no entry", name
            )
    yield from _misfits_of_predecessor(lock.predecessor, recipe.publish.replaces)
    yield from _misfits_of_tasks(lock, recipe.evaluate)
    yield from _misfits_of_searches(lock, recipe)
    for name, board in recipe.leaderboards.items():
        snapshot = lock.leaderboards[name].name if name in lock.leaderboards else "no entry"
        if snapshot != board.snapshot:
            yield Misfit(f"leaderboards.{name}", "pins another snapshot", board.snapshot, snapshot)
        elif (uri := lock.leaderboards[name].uri) != (origin := board.fetch.uri if board.fetch else None):
            yield Misfit(f"leaderboards.{name}", "has a snapshot from another origin", str(origin), str(uri))
    pictured = recipe.release.image.file if recipe.release.image else "none"
    if (found := lock.image.name if lock.image else "none") != pictured:
        yield Misfit("release.image", "pins another picture", pictured, found)
    own = {name for name in recipe.card.sections if name not in SECTIONS}
    for name in sorted({*own, *lock.templates}):
        named = f"{str(recipe.card.templates).rstrip('/')}/{name}{TEMPLATE_SUFFIX}"
        found = lock.templates[name].name if name in lock.templates else "no entry"
        if found != named or name not in recipe.card.sections:
            yield Misfit(f"card.sections {name}", "pins another template", named, found)
    for name, text in recipe.calibration.items():
        pinned = lock.calibration[name].asked if name in lock.calibration else "no entry"
        if pinned != request(text):
            yield Misfit(
                f"calibration.{name}", "was made for another request", str(request(text)), str(pinned)
            )
    loss = recipe.quantize.loss if recipe.quantize else None
    for name, entry in (loss.others if loss else {}).items():
        yield from _misfits_of_hub_file(f"quantize.loss.others.{name}", entry, lock.others.get(name))
    yield from _misfits_of_imatrix(given_imatrix(recipe), lock.imatrix)


def _misfits_of_imatrix(
    given: GivenImatrix | HubImatrix | None, locked: LockedFile | LockedHubFile | None
) -> Iterator[Misfit]:
    where = "quantize.imatrix"
    if isinstance(given, HubImatrix):
        found = locked if isinstance(locked, LockedHubFile) else None
        yield from _misfits_of_hub_file(where, given, found)
        return
    expected = given.file if given else "none"
    actual = locked.name if isinstance(locked, LockedFile) else str(locked.asked) if locked else "none"
    if expected != actual:
        yield Misfit(where, "pins another file", expected, actual)


def _misfits_of_hub_file(where: str, entry: HubFile, locked: LockedHubFile | None) -> Iterator[Misfit]:
    wanted = asked_of(entry)
    if locked is None or locked.asked != wanted:
        found = str(locked.asked) if locked else "no entry"
        yield Misfit(where, "was made for another request", str(wanted), found)
    elif locked.file.name != entry.file:
        yield Misfit(where, "pins another file", entry.file, locked.file.name)
    else:
        yield from _misfits_of_revision(where, entry, locked.revision)


def _misfits_of_tasks(lock: Lock, evaluate: Evaluate | None) -> Iterator[Misfit]:
    if evaluate is None:
        return
    missing = [suite for suite in evaluate.suites if suite not in lock.suites]
    yield from (Misfit(f"evaluate.tasks {suite}", "has no entry", suite, "no entry") for suite in missing)
    if missing:
        return
    suites = {name: locked.suite for name, locked in lock.suites.items()}
    for task, _, _ in measured(evaluate, suites):
        if task not in lock.tasks:
            yield Misfit(f"evaluate.tasks {task}", "has no entry", task, "no entry")
            continue
        for name in lock.tasks[task].repos:
            repo, _, revision = name.partition("@")
            pinned = lock.data_sets.get(name)
            where = f"evaluate.tasks {task}"
            if pinned is None or pinned.repo != repo:
                found = pinned.repo if pinned else "no entry"
                yield Misfit(where, "pins another data set", repo, found)
            elif not COMMIT.fullmatch(pinned.revision):
                yield Misfit(where, "pins what is not a commit", revision or "a commit", pinned.revision)
            elif COMMIT.fullmatch(revision) and revision != pinned.revision:
                yield Misfit(where, "pins another commit", revision, pinned.revision)


def _misfits_of_predecessor(locked: LockedPredecessor | None, asked: str | None) -> Iterator[Misfit]:
    where, (repo, _, revision) = "publish.replaces", (asked or "").partition("@")
    if (locked.asked if locked else None) != asked:
        found = locked.asked if locked else "no entry"
        yield Misfit(where, "pins another predecessor", asked or "no entry", found)
    elif locked and locked.repo != repo:
        yield Misfit(where, "pins another predecessor", repo, locked.repo)
    elif locked and not COMMIT.fullmatch(locked.revision):
        yield Misfit(where, "pins what is not a commit", revision or "a commit", locked.revision)
    elif locked and COMMIT.fullmatch(revision) and revision != locked.revision:
        yield Misfit(where, "pins another commit", revision, locked.revision)


def _misfits_of_searches(lock: Lock, recipe: Recipe) -> Iterator[Misfit]:
    """Yield searches whose tasks are not pinned; whether what one found still holds is a question of the plan."""
    for name in dict.fromkeys((*recipe.models, *lock.tuned)):
        search = search_of(recipe.models[name]) if name in recipe.models else None
        expected = ", ".join(sorted(one.task for one in search.tasks)) if search else "no entry"
        found = ", ".join(sorted(lock.tuned[name].tasks)) if name in lock.tuned else "no entry"
        if expected != found:
            yield Misfit(f"models.{name}.search", "pins other tasks", expected, found)


def _misfits_of_source(
    where: str, model: Hub | Folder | Pypi, locked: LockedSource | None
) -> Iterator[Misfit]:
    wanted = request(model)
    if locked is None or locked.asked != wanted:
        found = str(locked.asked) if locked else "no entry"
        yield Misfit(where, "was made for another request", str(wanted), found)
        return
    if isinstance(model, Hub):
        yield from _misfits_of_revision(where, model, locked.revision)
    else:
        if model.license is not None and locked.license != model.license:
            yield Misfit(where, "names another license", model.license, str(locked.license))
        named = (model.hub_id or "").partition("@")[2]
        if locked.hub_commit and (
            not model.hub_id or (COMMIT.fullmatch(named) and named != locked.hub_commit)
        ):
            yield Misfit(f"{where}.hub_id", "has another commit", named or "no entry", locked.hub_commit)
    uri = uri_of(model, locked.revision)
    if locked.uri != uri:
        yield Misfit(where, "names another origin", uri, locked.uri)


def _misfits_of_adapter(where: str, model: Adapter, locked: LockedAdapter | None) -> Iterator[Misfit]:
    wanted = request(model)
    if locked is None or locked.asked != wanted:
        found = str(locked.asked) if locked else "no entry"
        yield Misfit(where, "was made for another request", str(wanted), found)
    elif isinstance(model.adapter, Hub):
        yield from _misfits_of_revision(where, model.adapter, str(locked.revision))
    elif locked.revision is not None:
        yield Misfit(where, "pins a commit of a folder", "no commit", locked.revision)


def _misfits_of_revision(where: str, model: Hub | HubFile, revision: str) -> Iterator[Misfit]:
    wanted = model.hub.partition("@")[2]
    if not COMMIT.fullmatch(revision):
        yield Misfit(where, "pins what is not a commit", wanted or "a commit", revision)
    elif COMMIT.fullmatch(wanted) and wanted != revision:
        yield Misfit(where, "pins another commit", wanted, revision)


def check_fits(lock: Lock, recipe: Recipe, path: Path) -> None:
    """Check that a lock fits its recipe.

    Raises:
        LockError: If an entry is missing or was made for another request; the message names each.
    """
    stale = [misfit.where for misfit in misfits(lock, recipe)]
    if lock.tasks and lock.harness is None:
        stale.append("evaluate.tasks")  # of a lock of an older version, whose tasks have no definitions
    if stale:
        raise LockError(
            f"{path}: the lock does not match the recipe at {', '.join(dict.fromkeys(stale))}. Run {lock_command(path)}."
        )
