"""Looking sources up again: each source by itself, so that one that cannot be had hides nothing of the others.

What lies beside the recipe (folders, tasks, texts, snapshots) is not upstream: its pins stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import GoneError, HerdbookError
from herdbook.files import sha256_file
from herdbook.lock.pin import pin_adapter, pin_hub, pin_pypi
from herdbook.recipe import Adapter, Hub, Pypi
from herdbook.refresh.difference import PinDifference, between
from herdbook.sources import wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from herdbook.hub import RemoteRepo
    from herdbook.lock import Lock, LockedAdapter, LockedSource
    from herdbook.recipe import Recipe


@dataclass(frozen=True)
class UpstreamChange:
    """What upstream says of one source or adapter.

    Args:
        name: The recipe's name for it.
        place: Where it is, as the recipe has it.
        before: The revision that was pinned.
        after: The revision that is there now; that which was pinned if it could not be had.
        difference: What differs between the two pins; None if nothing does.
        notes: What the lock does not hold but a person should know, a sentence each.
        trouble: Why it cannot be had; empty if it can.
    """

    name: str
    place: str
    before: str
    after: str
    difference: PinDifference | None = None
    notes: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def state(self) -> str:
        """One word: moved, unchanged or unavailable."""
        if self.trouble:
            return "unavailable"
        return "moved" if self.difference else "unchanged"


def look_up(
    recipe: Recipe, lock: Lock, beside: Path, report: Callable[[str], None]
) -> tuple[Lock, list[UpstreamChange]]:
    """Ask what a recipe's sources are now.

    Args:
        recipe: The recipe.
        lock: Its lock, which answers it.
        beside: The recipe's folder.
        report: Called with a line for each source that is looked up.

    Returns:
        The lock with what moved pinned anew, and what upstream says of each source that is upstream, in the recipe's order. If
        nothing moved, the lock is equal to the one that was given.
    """
    sources, adapters = dict(lock.sources), dict(lock.adapters)
    changes = []
    for name, model in recipe.models.items():
        match model:
            case Hub():
                report(f"{name}: {model.hub}")
                change, sources[name] = _hub(name, model, lock.sources[name])
            case Pypi():
                report(f"{name}: {model.pypi}")
                change, sources[name] = _pypi(name, model, lock.sources[name])
            case Adapter(adapter=Hub() as source):
                report(f"{name}: {model.place}")
                change, adapters[name] = _adapter(name, model, source, lock.adapters[name], beside)
            case _:
                continue
        changes.append(change)
    return lock.model_copy(update={"sources": sources, "adapters": adapters}), changes


def _hub(name: str, model: Hub, pinned: LockedSource) -> tuple[UpstreamChange, LockedSource]:
    try:
        remote = _resolve(model)
        if remote.commit == pinned.revision and _has(remote, pinned):
            # what was read of the files is as it was; what else a pin holds can change without a commit
            now = pinned.model_copy(
                update={
                    "license": remote.license,
                    "base_models": remote.base_models,
                    "gated": remote.gated,
                }
            )
        else:
            now = pin_hub(model, remote)
    except HerdbookError as error:
        return _unavailable(
            name, model.hub, pinned.revision, _with_pin(error, model, pinned.revision)
        ), pinned
    return _change(name, model.hub, pinned, now, _notes(model, remote, pinned.revision)), now


def _adapter(
    name: str, model: Adapter, source: Hub, pinned: LockedAdapter, beside: Path
) -> tuple[UpstreamChange, LockedAdapter]:
    commit = str(pinned.revision)
    try:
        remote = _resolve(source)
        unmoved = remote.commit == commit and _has(remote, pinned)
        now = pinned if unmoved else pin_adapter(model, beside)
    except HerdbookError as error:
        return _unavailable(name, source.hub, commit, _with_pin(error, source, commit)), pinned
    return _change(name, source.hub, pinned, now, _notes(source, remote, commit)), now


def _pypi(name: str, model: Pypi, pinned: LockedSource) -> tuple[UpstreamChange, LockedSource]:
    """Ask for a wheel again. Its version is part of the recipe, so it can only vanish or be another file."""
    try:
        same = sha256_file(wheel.download(model.pypi)) == pinned.revision
        now = pinned if same else pin_pypi(model)
    except HerdbookError as error:
        return _unavailable(name, model.pypi, pinned.revision, str(error)), pinned
    except ModuleNotFoundError as error:  # looking needs less than reading GGUF does
        trouble = (
            f"pypi: {model.pypi}: its wheel is not the one that was pinned; to read it, {error.name} is needed: "
            "pip install 'herdbook[quantize]'"
        )
        return _unavailable(name, model.pypi, pinned.revision, trouble), pinned
    return _change(name, model.pypi, pinned, now), now


def _resolve(model: Hub) -> RemoteRepo:
    repo, _, revision = model.hub.partition("@")
    return hub.resolve(repo, revision or None)


def _has(remote: RemoteRepo, pinned: LockedSource | LockedAdapter) -> bool:
    """Say whether a repository has all pinned files as they were pinned."""
    there = {file.name: (file.size_bytes, file.sha256, file.git_blob) for file in remote.files}
    return all(there.get(file.name) == (file.size_bytes, file.sha256, file.git_blob) for file in pinned.files)


def _notes(model: Hub, remote: RemoteRepo, pinned: str) -> tuple[str, ...]:
    repo = model.hub.partition("@")[0]
    notes = []
    if remote.repo != repo:
        notes.append(
            f"the repository is called {remote.repo} now. The old name leads there until somebody takes it: "
            "put the new one into the recipe"
        )
    if remote.commit != pinned and _is_gone(repo, pinned):
        notes.append(
            f"the commit that was pinned, {pinned}, is gone: nobody can fetch what was built from it again"
        )
    return tuple(notes)


def _with_pin(error: HerdbookError, model: Hub, pinned: str) -> str:
    """Return why a source cannot be had and, where the repository answers, whether what was pinned still can."""
    repo, _, revision = model.hub.partition("@")
    if not isinstance(error, GoneError) or revision == pinned:
        return str(error)
    state = "is gone, too" if _is_gone(repo, pinned) else "is still there, so the lock can be built"
    return f"{error} The commit that was pinned, {pinned}, {state}."


def _is_gone(repo: str, commit: str) -> bool:
    """Say whether a repository certainly lacks a commit."""
    try:
        hub.resolve(repo, commit)
    except GoneError:
        return True
    except HerdbookError:
        return False
    return False


def _unavailable(name: str, place: str, pinned: str, trouble: str) -> UpstreamChange:
    return UpstreamChange(name, place, pinned, pinned, trouble=trouble)


def _change(
    name: str,
    place: str,
    before: LockedSource | LockedAdapter,
    after: LockedSource | LockedAdapter,
    notes: tuple[str, ...] = (),
) -> UpstreamChange:
    difference = between(before, after) if before != after else None
    return UpstreamChange(name, place, str(before.revision), str(after.revision), difference, notes)
