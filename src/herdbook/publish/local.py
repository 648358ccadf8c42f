"""What is to be published: a release's folder, each file compared with SHA256SUMS before anything is sent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.errors import HerdbookError, VerificationError
from herdbook.files import CHUNK_BYTES, sha256_file
from herdbook.layout import LOCK, OUTSIDE_SUMS, RECIPE, SUMS
from herdbook.progress import track
from herdbook.release.reader import parse_sums

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from herdbook.hub import RemoteFile
    from herdbook.lock import Lock
    from herdbook.recipe import Recipe


@dataclass(frozen=True)
class LocalFile:
    """A file to be published.

    Args:
        name: Its name in the release.
        size_bytes: Its size.
        sha256: SHA-256 of its content.
        content: Its content, or the path of the file that holds it.
    """

    name: str
    size_bytes: int
    sha256: str
    content: Path | bytes

    @staticmethod
    def of(name: str, content: bytes) -> LocalFile:
        """Return a file of this content."""
        return LocalFile(name, len(content), hashlib.sha256(content).hexdigest(), content)

    @cached_property
    def git_blob(self) -> str:
        """The id that git gives to its content, which is all that the Hub knows of a small file."""
        state = hashlib.sha1(b"blob %d\0" % self.size_bytes, usedforsecurity=False)
        if isinstance(self.content, bytes):
            state.update(self.content)
            return state.hexdigest()
        with self.content.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                state.update(piece)
        return state.hexdigest()

    def is_same(self, there: RemoteFile | None) -> bool:
        """Return whether another place's file has this one's content, by size and the digest that the place knows."""
        if there is None or there.size_bytes != self.size_bytes:
            return False
        if there.sha256 is not None:
            return there.sha256 == self.sha256
        return there.git_blob == self.git_blob


@dataclass(frozen=True)
class Release:
    """A release's folder as it was read.

    Args:
        folder: Where it lies.
        sums: SHA-256 of each file that SHA256SUMS lists, by name.
        files: All its files, by name.
        recipe: Its own recipe.
        lock: Its own lock.
        problems: What is wrong with its files, one line each.
    """

    folder: Path
    sums: dict[str, str]
    files: dict[str, LocalFile]
    recipe: Recipe
    lock: Lock
    problems: tuple[str, ...]

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of all that its claims are about: the files that SHA256SUMS lists, and SHA256SUMS itself."""
        return {**self.sums, SUMS: self.files[SUMS].sha256}

    @property
    def name(self) -> str:
        """Its name, and its tag if it has one."""
        return " ".join(filter(None, (self.recipe.release.name, self.recipe.publish.tag)))


def read(folder: Path) -> Release:
    """Read a release's folder: every file is hashed.

    Raises:
        VerificationError: If it is no release whose checksums, recipe and lock can be read.
    """
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VerificationError(f"{folder}: is no release: it has no {SUMS} that can be read") from error
    sums = parse_sums(text, str(folder / SUMS))
    present = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    try:
        recipe, lock = recipes.load(folder / RECIPE), locks.load(folder / LOCK)
    except HerdbookError as error:
        raise VerificationError(f"{folder}: is no release of Herdbook: {error}") from error
    files = _hash(present)
    return Release(folder, sums, files, recipe, lock, tuple(_problems(folder, sums, files)))


def _hash(present: dict[str, Path]) -> dict[str, LocalFile]:
    found = {}
    with track("hashing", len(present)) as advance:
        for name in sorted(present):
            path = present[name]
            found[name] = LocalFile(name, path.stat().st_size, sha256_file(path), path)
            advance()
    return found


def _problems(folder: Path, sums: dict[str, str], files: dict[str, LocalFile]) -> Iterable[str]:
    for name in sorted(sums.keys() - files.keys()):
        yield f"{folder / name}: is listed in {SUMS} but not there; make the release again"
    for name in sorted(files.keys() - sums.keys() - OUTSIDE_SUMS):
        yield f"{folder / name}: is not listed in {SUMS}; take it away, or make the release again"
    for name in sorted(sums.keys() & files.keys()):
        if files[name].sha256 != sums[name]:
            yield (
                f"{folder / name}: expected sha256 {sums[name]}, found {files[name].sha256}; make the release again"
            )
