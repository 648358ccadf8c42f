"""Pinning a snapshot of a leaderboard: a file beside the recipe, which is fetched once if the recipe names its origin.

A leaderboard changes from day to day, so what a place was taken from is kept: the file stays beside the recipe, and is
released. What it was at its source is compared as long as the source has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub, limits
from herdbook.errors import SourceError
from herdbook.files import atomic_writer
from herdbook.lock.evaluation import LockedSnapshot
from herdbook.lock.local import pin_local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from herdbook.recipe import Leaderboard


def pin_snapshot(
    name: str, board: Leaderboard, beside: Path, report: Callable[[str], None]
) -> LockedSnapshot:
    """Pin a leaderboard's snapshot; fetch it first if it does not exist, and the recipe names its origin.

    Args:
        name: The leaderboard's name in the recipe.
        board: Its entry.
        beside: The recipe's folder.
        report: Called with a line if something is fetched.

    Raises:
        SourceError: If it does not exist, cannot be fetched, or differs from the file of the data set that it is to be.
    """
    where, path, origin = f"leaderboards.{name}", beside / board.snapshot, board.fetch
    revision = None
    if origin is not None:
        limit = limits.SNAPSHOT_BYTES
        content = path.read_bytes() if path.is_file() else None
        if origin.dataset and origin.file:
            repo, _, revision = origin.dataset.partition("@")
            revision, remote = hub.file_of_data_set(repo, revision or None, origin.file)
            if content is None:
                report(f"{name}: {origin.uri} at {revision}")
                content = _write(path, hub.read_of_data_set(repo, revision, remote, limit))
            elif not hub.matches(content, remote):
                raise SourceError(
                    f"{where}: {path} differs from {origin.uri} at {revision}. Delete it to fetch that one, "
                    "or name its revision"
                )
        elif content is None and origin.url:
            report(f"{name}: {origin.url}")
            _write(path, hub.read_url(origin.url, limit))
    pinned = pin_local(beside, board.snapshot, where)
    return LockedSnapshot(**pinned.model_dump(), uri=origin.uri if origin else None, revision=revision)


def _write(path: Path, content: bytes) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as file:
        file.write(content)
    return content
