"""Whether a model in a folder or a package is the model of the Hub that its recipe names: by the digests of its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.lock.weights import LockedSource
    from herdbook.recipe import Folder, Pypi


def prove(
    name: str, model: Folder | Pypi, locked: LockedSource, report: Callable[[str], None]
) -> LockedSource:
    """Return a source with the commit of the Hub that has its weights, if there is one; else it stays the author's word.

    Args:
        name: Its name in the recipe.
        model: Its entry there.
        locked: Its pin.
        report: Called with a line on what was found.
    """
    if model.hub_id is None:
        return locked
    where = f"{name}: hub_id: {model.hub_id}"
    repo, _, revision = model.hub_id.partition("@")
    try:
        remote = hub.resolve(repo, revision or None)
    except SourceError as error:
        report(f"{where}: not compared, so it stays as you state: {error}")
        return locked
    if (missing := lacks(locked, remote)) is None:
        report(f"{where}: proven: commit {remote.commit} has the same weights, byte for byte")
        return locked.model_copy(update={"hub_commit": remote.commit})
    report(f"{where}: not proven, so it stays as you state: {missing}")
    return locked


def lacks(locked: LockedSource, remote: hub.RemoteRepo) -> str | None:
    """Return what of a source's weights a commit does not have, in words; None if it has them all, byte for byte."""
    if locked.weights != "safetensors":
        return "its weights are not in safetensors, so no digests can be compared"
    digests = {file.sha256 for file in remote.files if file.sha256}
    for file in locked.files:
        if file.name.endswith(".safetensors") and file.sha256 not in digests:
            return f"commit {remote.commit} has no file with the content of {file.name}"
    return None
