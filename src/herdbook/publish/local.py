"""The release to publish: a folder whose files are all compared with SHA256SUMS before anything is sent."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, cast

from herdbook.errors import HerdbookError, NoReleaseError, VerificationError, message
from herdbook.files import CHUNK_BYTES
from herdbook.layout import OUTSIDE_SUMS, SUMS
from herdbook.progress import track
from herdbook.release.places import unlisted
from herdbook.release.reader import open_release

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from herdbook.hub import RemoteFile
    from herdbook.lock import Lock
    from herdbook.recipe import Recipe
    from herdbook.release.reader import Release
    from herdbook.release.subject import FolderSubject


@dataclass(frozen=True)
class LocalFile:
    """A file to be published.

    Args:
        name: Its name in the release.
        size_bytes: Its size.
        sha256: SHA-256 of its content.
        content: Its content, or the folder that has it under its name.
    """

    name: str
    size_bytes: int
    sha256: str
    content: FolderSubject | bytes

    @staticmethod
    def of(name: str, content: bytes) -> LocalFile:
        """Return a file with this content."""
        return LocalFile(name, len(content), hashlib.sha256(content).hexdigest(), content)

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open its content. Raises as ``FolderSubject.open``."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        return self.content.open(self.name)

    def read(self) -> bytes:
        """Return its content. Raises as ``Subject.read``."""
        return self.content if isinstance(self.content, bytes) else self.content.read(self.name)

    @cached_property
    def git_blob(self) -> str:
        """Git's id of its content, the only digest that the Hub states for a small file."""
        state = hashlib.sha1(b"blob %d\0" % self.size_bytes, usedforsecurity=False)
        with self.open() as file:
            while piece := file.read(CHUNK_BYTES):
                state.update(piece)
        return state.hexdigest()

    def is_same(self, remote: RemoteFile | None) -> bool:
        """Return whether a remote file has the same content, by its size and the digest that the remote side states."""
        if remote is None or remote.size_bytes != self.size_bytes:
            return False
        if remote.sha256 is not None:
            return remote.sha256 == self.sha256
        return remote.git_blob == self.git_blob


@dataclass(frozen=True)
class LocalRelease:
    """A release's folder, all of whose files were hashed.

    Args:
        folder: The folder.
        release: Its content as a release.
        files: All its files, by name.
        problems: The problems of its files, one line each.
        ignored: What other programs left in the folder, a line for each place; it is not published.
    """

    folder: Path
    release: Release
    files: dict[str, LocalFile]
    problems: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        """Its own recipe."""
        return self.release.recipe

    @property
    def lock(self) -> Lock:
        """Its own lock."""
        return self.release.lock

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of all files that its claims cover, by name."""
        return self.release.digests

    @property
    def digest(self) -> str:
        """What identifies it, see ``Release.digest``."""
        return self.release.digest

    @property
    def name(self) -> str:
        """Its name, and its tag if it has one."""
        return " ".join(filter(None, (self.release.title, self.recipe.publish.tag)))


def read(folder: Path) -> LocalRelease:
    """Read a release's folder: every file is hashed.

    Raises:
        NoReleaseError: If it is missing, or is not a release.
        VerificationError: If its checksums, recipe or lock cannot be read.
    """
    if not folder.is_dir():
        raise NoReleaseError(f"{folder}: there is no such folder, so no release to publish")
    try:
        release = open_release(folder)
        _, _ = release.recipe, release.lock
    except NoReleaseError:
        raise
    except (HerdbookError, OSError) as error:
        said = message(error).removeprefix(f"{folder}: ")
        raise VerificationError(f"{folder}: cannot be read as a release: {said}") from error
    subject = cast("FolderSubject", release.subject)
    found = unlisted(release)
    files = _hash(subject, {*release.sums, *OUTSIDE_SUMS, *found.others} & subject.files.keys())
    return LocalRelease(
        folder, release, files, tuple(_problems(release, subject, files)), tuple(found.ignored)
    )


def _hash(subject: FolderSubject, names: set[str]) -> dict[str, LocalFile]:
    files = {}
    with track("hashing", len(names)) as advance:
        for name in sorted(names):
            files[name] = LocalFile(name, subject.files[name].size_bytes, subject.digest(name), subject)
            advance()
    return files


def _problems(release: Release, subject: FolderSubject, files: dict[str, LocalFile]) -> Iterable[str]:
    folder, sums = subject.folder, release.sums
    for name, why in sorted(subject.odd.items()):
        yield f"{folder / name}: {why}. Remove it, or rebuild the release"
    for name in sorted(sums.keys() - files.keys()):
        yield f"{folder / name}: is listed in {SUMS} but missing; rebuild the release"
    for name in sorted(files.keys() - sums.keys() - OUTSIDE_SUMS):
        yield f"{folder / name}: is not listed in {SUMS}; remove it, or rebuild the release"
    for name in sorted(sums.keys() & files.keys()):
        if files[name].sha256 != sums[name]:
            yield (
                f"{folder / name}: expected sha256 {sums[name]}, found {files[name].sha256}; rebuild the release"
            )
