"""Pinning a single file of another publisher: a quantized file to measure beside ours, or an importance matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import SourceError
from herdbook.humanize import did_you_mean
from herdbook.lock.asked import asked_of
from herdbook.lock.file import LockedFile, LockedHubFile

if TYPE_CHECKING:
    from herdbook.recipe import HubFile


def pin_hub_file(entry: HubFile, where: str) -> LockedHubFile:
    """Pin a file in a repository on the Hub: its commit, its size and its digest.

    Args:
        entry: The recipe's entry.
        where: The entry's place in the recipe, for error messages.

    Raises:
        SourceError: If the repository or the file is not there, or the Hub has no digest of its content.
    """
    repo, _, revision = entry.hub.partition("@")
    remote = hub.resolve(repo, revision or None)
    file = next((file for file in remote.files if file.name == entry.file), None)
    if file is None:
        suffix = entry.file.rpartition(".")[2]
        known = [file.name for file in remote.files if file.name.endswith(f".{suffix}")]
        advice = did_you_mean(entry.file, known) or (f"; it has {known[0]}" if known else "")
        raise SourceError(f"{where}: {repo}@{remote.commit[:8]} has no file {entry.file!r}{advice}")
    if file.sha256 is None:
        raise SourceError(
            f"{where}: the Hub has no SHA-256 of {entry.file} in {repo}@{remote.commit[:8]}, since it is not in Git LFS; "
            "download it, and name it as a local file"
        )
    return LockedHubFile(
        asked=asked_of(entry),
        revision=remote.commit,
        file=LockedFile(name=file.name, size_bytes=file.size_bytes, sha256=file.sha256),
        gated=remote.gated,
    )
