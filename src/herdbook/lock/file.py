"""Pinned files: a file's name, its size, and a digest of its content; and entries of a lock that are little else."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import FailFast, Field, JsonValue

from herdbook.errors import LockError
from herdbook.files import sha256_file
from herdbook.recipe import Section
from herdbook.sources.license_files import check_size, license_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

FIRST = FailFast()  # one error is reported, and those of a million wrong entries would take all memory


class LockedFile(Section):
    """A file of a source. Small files on the Hub have only git's id of their content."""

    name: str
    size_bytes: int = Field(ge=0)
    sha256: str | None = None
    git_blob: str | None = None


class LockedText(Section):
    """A license text of a source as a whole, so that a release hands it on without fetching it again.

    ``encoding`` is latin-1 if it is not UTF-8: so its bytes are kept.
    """

    name: str
    text: str
    encoding: Literal["utf-8", "latin-1"] = "utf-8"

    @property
    def sha256(self) -> str:
        """The digest of its bytes."""
        return hashlib.sha256(self.text.encode(self.encoding)).hexdigest()


class LockedHubFile(Section):
    """A single file of another publisher, pinned: the commit of its repository, and the file."""

    asked: dict[str, JsonValue]
    revision: str
    file: LockedFile
    gated: str | bool = False


class LockedCalibration(Section):
    """Calibration text, pinned: its files."""

    asked: dict[str, JsonValue]
    data: Annotated[tuple[LockedFile, ...], FIRST]


def pin_texts(
    names: Iterable[str], read: Callable[[str], bytes], size: Callable[[str], int], what: str
) -> tuple[LockedText, ...]:
    """Return the license texts among a source's files.

    Args:
        names: The names of the files.
        read: Returns the content of one of them.
        size: Returns its size, before it is read.
        what: The source, for error messages.

    Raises:
        SourceError: If one is longer than any license.
    """
    texts = []
    for name in license_files(names):
        check_size(size(name), f"{what}: {name}")
        content = read(name)
        try:
            texts.append(LockedText(name=name, text=content.decode("utf-8")))
        except UnicodeDecodeError:
            texts.append(LockedText(name=name, text=content.decode("latin-1"), encoding="latin-1"))
    return tuple(texts)


def pin_file(path: Path, name: str) -> LockedFile:
    """Return the pin of a local file, under ``name``."""
    return LockedFile(name=name, size_bytes=path.stat().st_size, sha256=sha256_file(path))


def check_pinned(path: Path, pinned: LockedFile, what: str) -> None:
    """Check a small local file against its pin.

    Raises:
        LockError: If it changed since it was locked.
    """
    current = pin_file(path, pinned.name) if path.is_file() else None
    if current is None or current.sha256 != pinned.sha256:
        state = "was deleted" if current is None else "has changed"
        raise LockError(f"{what}: {path} {state} since it was locked. Restore it, or run `herdbook lock`.")
