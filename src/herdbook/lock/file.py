"""A pinned file: its name, its size, and a digest of its content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import FailFast, Field

from herdbook.errors import LockError
from herdbook.files import sha256_file
from herdbook.recipe import Section

if TYPE_CHECKING:
    from pathlib import Path

FIRST = FailFast()  # one error is reported, and those of a million wrong entries would take all memory


class LockedFile(Section):
    """A file of a source. Small files on the Hub have only git's id of their content."""

    name: str
    size_bytes: int = Field(ge=0)
    sha256: str | None = None
    git_blob: str | None = None


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
