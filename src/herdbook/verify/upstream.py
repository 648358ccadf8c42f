"""The level `upstream`: the pinned files are still available, with the digests that were pinned.

Only the Hub's own description of each repository at its pinned commit is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import GoneError, HerdbookError, SourceError, UnverifiedError
from herdbook.layout import LOCK, RECIPE
from herdbook.plan.material import adapter_uri
from herdbook.recipe import Adapter
from herdbook.release.finding import Check
from herdbook.sources import purl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import LockedFile
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.release.subject import Subject

LEVEL = "upstream"
PINNED = Check(LEVEL, "pinned")


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Check each source and adapter on the Hub; report others as unverified."""
    del options
    for name, locked in release.lock.sources.items():
        yield from _pinned(release, name, locked.uri, locked.files)
    for name, adapter in release.lock.adapters.items():
        model = release.recipe.models.get(name)
        if not isinstance(model, Adapter):
            yield PINNED.failed(name, f"the lock pins an adapter that {RECIPE} does not name", file=LOCK)
            continue
        yield from _pinned(release, f"adapter of {name}", adapter_uri(model, adapter), adapter.files)


def _pinned(release: Release, name: str, uri: str, files: tuple[LockedFile, ...]) -> Iterator[Finding]:
    """Check one source or adapter."""
    try:
        remote = release.source(uri)
    except GoneError as error:
        yield PINNED.failed(name, f"{uri} is gone: {error} {_elsewhere(uri, files)}", source=uri)
    except (SourceError, UnverifiedError) as error:
        yield PINNED.error(name, error, source=uri)
    else:
        yield from _files(name, uri, files, remote)


def _files(name: str, uri: str, files: tuple[LockedFile, ...], remote: Subject) -> Iterator[Finding]:
    wrong = 0
    for file in files:
        expected = _format(file)
        entry = remote.files.get(file.name)
        actual = f"{entry.sha256 or entry.git_blob}, {entry.size_bytes} bytes" if entry else "no such file"
        if expected != actual:
            wrong += 1
            detail = f"{file.name} of {uri} differs from what was pinned"
            yield PINNED.failed(name, detail, expected=expected, found=actual, source=f"{uri}#{file.name}")
    if not wrong:
        detail = f"all {len(files)} files exist with their pinned digests"
        if remote.uri != uri:
            detail += f"; the repository is now {_repo(remote.uri)}"
        yield PINNED.passed(name, detail, source=uri)


def _repo(uri: str) -> str:
    """Return ``owner/name`` of a source that was opened by its URI."""
    commit = purl.parse(uri)
    assert commit  # noqa: S101 - other URIs are not opened
    return commit.repo


def _format(file: LockedFile) -> str:
    return f"{file.sha256 or file.git_blob}, {file.size_bytes} bytes"


def _elsewhere(uri: str, files: tuple[LockedFile, ...]) -> str:
    """Return whether the repository's main branch still has the same weights, as a sentence."""
    pinned = {file.sha256 for file in files if file.sha256}
    try:
        main = hub.resolve(_repo(uri), None)
    except HerdbookError:
        return "The repository itself cannot be read."
    present = {file.sha256 for file in main.files}
    if pinned and pinned <= present:
        return f"Its main branch, now {main.commit}, still has all pinned weights, byte for byte."
    return f"Its main branch, now {main.commit}, has {len(pinned & present)} of {len(pinned)} pinned weights files."
