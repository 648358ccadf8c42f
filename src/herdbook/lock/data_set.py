"""Pinning the data sets on the Hub that evaluation tasks read: their commits, and the digests of the files that are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import SourceError
from herdbook.layout import CARD
from herdbook.lock.evaluation import LockedDataSet, data_set_of
from herdbook.lock.file import LockedFile
from herdbook.lock.local import check_small
from herdbook.sources.data_set import (
    CONVERTED,
    converted_card,
    is_script,
    read_front,
    reading_of,
    wanted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from herdbook.errors import Gathered
    from herdbook.lock.evaluation import LockedTask
    from herdbook.sources.data_set import Reading


def pin_data_sets(
    tasks: Mapping[str, LockedTask], report: Callable[[str], None], found: Gathered
) -> dict[str, LockedDataSet]:
    """Pin the data sets that tasks read, each once, with the files that any of these tasks reads.

    Args:
        tasks: The tasks.
        report: Called with a line for each data set.
        found: Takes the errors: of data sets and revisions that are unavailable, or have not what a task reads of them.

    Returns:
        The others.
    """
    pinned = {}
    for name, read in readings(tasks).items():
        report(f"data set: {name}")
        repo, _, revision = name.partition("@")
        branch = revision or "main"
        with found.one():
            remote = hub.resolve(repo, revision or None, "dataset")
            if is_script(repo, [file.name for file in remote.files]):
                branch = CONVERTED
                remote = hub.resolve(repo, branch, "dataset")
            pinned[name] = pin_data_set(repo, remote, branch, read)
    return pinned


def readings(tasks: Mapping[str, LockedTask]) -> dict[str, dict[Reading, str]]:
    """Return how tasks read each data set: by its key in the lock, each way with the name of a task that reads it so."""
    found: dict[str, dict[Reading, str]] = {}
    for locked in tasks.values():
        for task, config in locked.definitions.items():
            if (name := data_set_of(config)) is not None:
                found.setdefault(name, {}).setdefault(reading_of(config), task)
    return found


def pin_data_set(
    repo: str, remote: hub.RemoteRepo, branch: str, read: Mapping[Reading, str]
) -> LockedDataSet:
    """Pin a data set at a commit.

    Args:
        repo: ``owner/name``.
        remote: What it resolved to.
        branch: Where that is.
        read: How it is read, each with the name of a task that does.
    """
    files = {file.name: file for file in remote.files}
    what = f"hub: datasets/{repo}@{remote.commit[:8]}"
    front = front_of(repo, remote.commit, branch, files, what)
    names = {
        name for reading, task in read.items() for name in _wanted(reading, front, files, f"{task}: {what}")
    }
    return LockedDataSet(
        repo=repo,
        revision=remote.commit,
        branch=branch,
        files=tuple(
            LockedFile(
                name=name,
                size_bytes=files[name].size_bytes,
                sha256=files[name].sha256,
                git_blob=files[name].git_blob,
            )
            for name in sorted(names)
        ),
        gated=remote.gated,
    )


def front_of(
    repo: str, commit: str, branch: str, files: Mapping[str, hub.RemoteFile], what: str
) -> dict[str, object]:
    """Return the content of a data set's card; for a conversion to Parquet, which has none, what its files' names imply."""
    if branch == CONVERTED:
        return converted_card(files, what)
    if CARD not in files:
        return {}
    check_small(files[CARD].size_bytes, f"{what}: {CARD}")
    return read_front(hub.download(repo, commit, files[CARD], kind="dataset").read_bytes(), what)


def _wanted(reading: Reading, front: Mapping[str, object], files: Iterable[str], what: str) -> set[str]:
    try:
        return wanted(reading, front, list(files), what)
    except SourceError as error:
        raise SourceError(f"evaluate.tasks: {error}") from error
