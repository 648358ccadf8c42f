"""Plain files inside a folder that others may have filled: nothing else in it is opened.

A link may lead to a private key, which would then be published; a pipe or a device never ends; and to open a device may already
do something.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from herdbook import limits
from herdbook.errors import UnverifiedError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_ADVICE = "only plain files are read. If the links in a copy are your own, make one without them: `cp -rL`"
# What the system answers if a component of a path is a link where none may be, or the file a socket.
_NOT_PLAIN = {errno.ELOOP, errno.EMLINK, errno.ENOTDIR, errno.ENXIO}


class OverfullError(UnverifiedError):
    """A folder has more files and folders than any release or model, so not all of them were looked at.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: has more than {limits.FILES:,} files and folders, so it was not read")
        self.folder = folder


class Stamp(NamedTuple):
    """The file system's description of a file, which differs after every change of its content."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @staticmethod
    def of(about: os.stat_result) -> Stamp:
        """Return the stamp of a file."""
        return Stamp(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def kind(about: os.stat_result) -> str | None:
    """Return what a file is, in words; None for a plain one."""
    form = stat.S_IFMT(about.st_mode)
    return None if form == stat.S_IFREG else _KINDS.get(form, "not a regular file")


def refusal(what: str) -> str:
    """Return why a file of some kind is not read."""
    return (
        f"is {what}; {_ADVICE}" if what == _KINDS[stat.S_IFLNK] else f"is {what}; only plain files are read"
    )


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all that a folder contains, folders apart: the name below it, and the file system's description of it. Links are not followed.

    Raises:
        OverfullError: If it has more files and folders than any release.
        UnverifiedError: If a folder cannot be read.
    """
    found, waiting = 0, [""]
    while waiting:
        parent = waiting.pop()
        try:
            entries = os.scandir(folder / parent)
        except FileNotFoundError:  # it is no more
            continue
        except OSError as error:
            raise UnverifiedError(f"{folder / parent}: cannot be read: {error.strerror}") from error
        with entries:
            for entry in entries:
                found += 1
                if found > limits.FILES:
                    raise OverfullError(folder)
                name = f"{parent}/{entry.name}" if parent else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                else:
                    yield name, entry.stat(follow_symlinks=False)


def open_file(folder: Path, name: str) -> BufferedReader:
    """Open a plain file for reading. No link below the folder is followed, wherever it leads; the folder itself may be one.

    Args:
        folder: The folder.
        name: The file's name below it.

    Raises:
        VerificationError: If it is not a plain file inside the folder.
        OSError: If it does not exist, or cannot be read.
    """
    path = folder / name
    *parents, last = PurePosixPath(name).parts or ("",)
    if ".." in (*parents, last) or PurePosixPath(name).is_absolute():
        raise VerificationError(f"{path}: leads out of {folder}")
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = inner
        if what := kind(os.stat(last, dir_fd=here, follow_symlinks=False)):
            raise VerificationError(f"{path}: {refusal(what)}")
        # another process may put a link or a pipe in its place in this moment
        handle = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    except OSError as error:
        if error.errno in _NOT_PLAIN:
            raise VerificationError(
                f"{path}: is not a plain file inside {folder}, so it is not read"
            ) from error
        raise
    finally:
        os.close(here)
    file = os.fdopen(handle, "rb")
    if what := kind(os.fstat(handle)):
        file.close()
        raise VerificationError(f"{path}: {refusal(what)}")
    return file


def read(folder: Path, name: str) -> bytes:
    """Return the content of a plain file. Raises as ``open_file``."""
    with open_file(folder, name) as file:
        return file.read()


def digest(folder: Path, name: str) -> str:
    """Return the SHA-256 of a plain file. Raises as ``open_file``."""
    with open_file(folder, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
