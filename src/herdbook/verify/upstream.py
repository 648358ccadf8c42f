"""The level `upstream`: what was pinned is still to be had, with the digests that were pinned.

Nothing but the Hub's own description of each repository at its pinned commit is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import GoneError, HerdbookError, SourceError, UnverifiedError
from herdbook.release.finding import Check
from herdbook.release.subject import HUB_PURL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import LockedFile, LockedSource
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.release.subject import Subject

LEVEL = "upstream"
PINNED = Check(LEVEL, "pinned")


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Check each source that is on the Hub; of others, say that strangers cannot."""
    del options
    for name, locked in release.lock.sources.items():
        try:
            there = release.source(locked.uri)
        except GoneError as error:
            detail = f"{locked.uri} is gone: {error} {_elsewhere(locked)}"
            yield PINNED.failed(name, detail, source=locked.uri)
        except (SourceError, UnverifiedError) as error:
            yield PINNED.error(name, error, source=locked.uri)
        else:
            yield from _files(name, locked, there)
    for name, adapter in release.lock.adapters.items():
        if adapter.revision is None:
            detail = "its adapter is a folder of the author's, so strangers cannot read it"
            yield PINNED.unverified(name, detail)


def _files(name: str, locked: LockedSource, there: Subject) -> Iterator[Finding]:
    wrong = 0
    for file in locked.files:
        expected = _spell(file)
        entry = there.files.get(file.name)
        found = f"{entry.sha256 or entry.git_blob}, {entry.size_bytes} bytes" if entry else "no such file"
        if expected != found:
            wrong += 1
            detail = f"{file.name} of {locked.uri} is not what was pinned"
            yield PINNED.failed(
                name, detail, expected=expected, found=found, source=f"{locked.uri}#{file.name}"
            )
    if not wrong:
        moved = there.uri != locked.uri
        detail = f"all {len(locked.files)} files are there with their digests" + (
            f"; the repository is now {there.uri.removeprefix(HUB_PURL).partition('@')[0]}" if moved else ""
        )
        yield PINNED.passed(name, detail, source=locked.uri)


def _spell(file: LockedFile) -> str:
    return f"{file.sha256 or file.git_blob}, {file.size_bytes} bytes"


def _elsewhere(locked: LockedSource) -> str:
    """Return where the same weights are still to be had, if the repository's main branch has them."""
    repo = locked.uri.removeprefix(HUB_PURL).partition("@")[0]
    wanted = {file.sha256 for file in locked.files if file.sha256}
    try:
        now = hub.resolve(repo, None)
    except HerdbookError:
        return "The repository itself cannot be read."
    held = {file.sha256 for file in now.files}
    if wanted and wanted <= held:
        return f"Its main branch, now {now.commit}, still has all pinned weights, byte for byte."
    return (
        f"Its main branch, now {now.commit}, has {len(wanted & held)} of {len(wanted)} pinned weights files."
    )
