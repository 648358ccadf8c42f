"""Local files that a recipe names: pinned by their digests, and read by their names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from herdbook import limits
from herdbook.errors import SourceError
from herdbook.lock.file import pin_file
from herdbook.sources import lfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from herdbook.lock.file import LockedFile


def pin_local(folder: Path, name: str, where: str) -> LockedFile:
    """Pin a file by its path in a folder.

    Args:
        folder: The folder.
        name: The path, as written in the recipe or the task.
        where: The key of the recipe that names it, for error messages.

    Raises:
        SourceError: If it does not exist, or is larger than any.
    """
    path = folder / name
    if not path.is_file():
        raise SourceError(f"{where}: the file {os.path.normpath(path)} does not exist")
    try:
        limits.check_size(path.stat().st_size, limits.TEXTS_BYTES)
    except limits.OverLimitError as error:
        raise SourceError(f"{where}: {os.path.normpath(path)}: refused: it {error}") from error
    return pin_file(path, name)


def reader(folder: Path) -> Callable[[str], bytes]:
    """Return a function that reads a folder's files by their names; it refuses those that are larger than any."""

    def read(name: str) -> bytes:
        check_small((folder / name).stat().st_size, f"{folder}: {name}")
        return (folder / name).read_bytes()

    return read


def check_small(size_bytes: int, what: str) -> None:
    """Refuse a configuration, an index or a tokenizer that is larger than any, before it is fetched or read.

    Raises:
        SourceError: If it is.
    """
    try:
        limits.TOKENIZER.check_size(size_bytes)
    except limits.OverLimitError as error:
        raise SourceError(f"{what}: refused: it {error}") from error


def refuse_pointers(folder: Path, names: Iterable[str], what: str) -> None:
    """Refuse a folder that was cloned without Git LFS: a pointer in place of a tokenizer would be released as one."""
    for name in names:
        with (folder / name).open("rb") as file:
            if lfs.is_pointer(file.read(len(lfs.START))):
                raise SourceError(f"{what}: {name}: {lfs.ADVICE} in {folder}")
