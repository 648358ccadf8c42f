"""Pinning quantized files of other publishers, which are measured beside ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import SourceError
from herdbook.humanize import did_you_mean
from herdbook.lock.file import LockedFile
from herdbook.lock.model import LockedOthersFile, request

if TYPE_CHECKING:
    from herdbook.recipe.loss import OthersFile


def pin_others_file(name: str, entry: OthersFile) -> LockedOthersFile:
    """Pin a GGUF file in a repository on the Hub: its commit, its size and its digest.

    Args:
        name: Its name in the recipe.
        entry: The recipe's entry.

    Raises:
        SourceError: If the repository or the file is not there.
    """
    repo, _, revision = entry.hub.partition("@")
    remote = hub.resolve(repo, revision or None)
    file = next((file for file in remote.files if file.name == entry.file), None)
    if file is None or file.sha256 is None:
        known = [file.name for file in remote.files if file.name.endswith(".gguf")]
        advice = did_you_mean(entry.file, known) or (f"; it has {known[0]}" if known else "")
        raise SourceError(
            f"quantize.loss.others.{name}: {repo}@{remote.commit[:8]} has no file {entry.file!r}{advice}"
        )
    return LockedOthersFile(
        asked=request(entry),
        revision=remote.commit,
        file=LockedFile(name=file.name, size_bytes=file.size_bytes, sha256=file.sha256),
        gated=remote.gated,
    )
