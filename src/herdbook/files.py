"""Atomic writing of files: written under a temporary name in the same folder, then renamed.

Who writes a temporary file or folder holds a lock (``flock``) on it, which the kernel releases when the process ends, however it
ends. So what killed processes left can be distinguished from what is being written, and is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, BinaryIO

from herdbook import flock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PART = ".part"
# Temporary names of this version and of earlier ones. `.herdbook.part` is not abandoned: an interrupted `herdbook publish --to`
# goes on with it.
_PART = re.compile(r"\..+\.(?:(?!herdbook\.)[a-z0-9_]{8}|[0-9]+)\.part", re.ASCII | re.DOTALL)
CHUNK_BYTES = 1 << 22
FLUSH_SECONDS = 0.25
FICLONE = 0x40049409  # Linux, see `man 2 ioctl_ficlone`; Python names it from 3.14 on


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of ``path``; rename it to ``path`` when the block ends without an error.

    An error or a killed process leaves ``path`` unchanged. A symbolic link at ``path`` is replaced, not followed.

    Args:
        path: The path of the file. Its folder is created if it is missing.

    Yields:
        A binary file object, open for reading and writing.

    Raises:
        OSError: If the disk is full or the folder is not writable; the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def create() -> tuple[int, str]:
        return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)

    handle, part = _claimed(create)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            part.chmod(0o666 & ~umask)
            part.replace(path)  # while the file is open, and therefore locked
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def written_meanwhile(file: BinaryIO) -> Iterator[None]:
    """Have the disk write a file's bytes while more are added, so that the last ``fsync`` need not wait for all of them.

    Raises:
        OSError: If the disk fails. The system reports that once: the last ``fsync`` would not.
    """
    ended = Event()
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only

    def flush() -> None:
        while not ended.wait(FLUSH_SECONDS):
            sync(file.fileno())

    with ThreadPoolExecutor(1) as pool:
        flushing = pool.submit(flush)
        try:
            yield
        finally:
            ended.set()
        flushing.result()


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Make a temporary folder beside ``path``, in which what will be renamed to ``path`` is made; remove it afterwards.

    Programs that are started meanwhile with ``close_fds=False`` keep the folder from being taken for abandoned.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def create() -> tuple[int, str]:
        while True:
            name = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
            with suppress(FileNotFoundError):  # it was taken for abandoned at once
                return os.open(name, os.O_RDONLY), name

    handle, folder = _claimed(create)
    try:
        os.set_inheritable(handle, True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _claimed(create: Callable[[], tuple[int, str]]) -> tuple[int, Path]:
    """Create a temporary file or folder, and lock it for as long as it is open: in this process, or in one that inherits it.

    Between the two, another process may take it for abandoned; then a new one is created.
    """
    while True:
        handle, name = create()
        try:
            flock.claim(handle)
        except BlockingIOError:
            os.close(handle)
            continue
        except OSError:  # the file system has no locks; then nothing removes it, either
            return handle, Path(name)
        if Path(name).exists():
            return handle, Path(name)
        os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files and folders below a folder that killed processes left: those that no process has locked.

    It is called by who owns the folder. Where the file system has no locks, nothing is removed.
    """
    for parent, folders, names in os.walk(folder):
        parts = [name for name in (*folders, *names) if _PART.fullmatch(name)]
        folders[:] = [name for name in folders if name not in parts]
        for name in parts:
            with suppress(OSError):  # it belongs to another user, or has just been renamed
                _remove_if_abandoned(Path(parent) / name)


def _remove_if_abandoned(path: Path) -> None:
    if path.is_symlink():  # of versions that did not make links in a folder of their own
        path.unlink()
        return
    is_folder = path.is_dir()
    handle = os.open(path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        flock.claim(handle)
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_writer(path) as file:
        file.write(text.encode())


def write_output(path: Path, text: str) -> None:
    """Write a file that the user named, as UTF-8. Links are followed, and what is there keeps its kind.

    A file is replaced atomically. A device or a pipe is written to: a file renamed to its path would take its place for all
    programs. So is what standard output or error goes to.

    Raises:
        OSError: If it is a folder, or cannot be written.
    """
    if not path.exists():
        write_text(Path(os.path.realpath(path)), text)
        return
    found = path.stat()
    for number in (1, 2):
        if _is_open(number, found):
            # opened anew, a file would be written from its beginning
            with os.fdopen(os.dup(number), "wb") as file:
                file.write(text.encode())
            return
    if stat.S_ISREG(found.st_mode):
        write_text(path.resolve(), text)
    else:
        with path.open("wb") as file:
            file.write(text.encode())


def _is_open(number: int, found: os.stat_result) -> bool:
    """Return whether a file descriptor is that of a file."""
    try:
        return os.path.samestat(found, os.fstat(number))
    except OSError:  # it is closed
        return False


def dump_json(value: Any) -> str:
    """Render JSON for people and for digests: sorted keys, indented by two spaces, with a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON (see ``dump_json``), atomically."""
    write_text(path, dump_json(value))


def link(target: Path, path: Path) -> None:
    """Make ``path`` a symbolic link to ``target``, atomically; the link is relative if ``target`` is."""
    with scratch(path) as folder:
        made = folder / path.name
        made.symlink_to(target if target.is_absolute() else os.path.relpath(target, path.parent))
        made.replace(path)


def clone(source: BinaryIO, target: BinaryIO) -> bool:
    """Let an empty file share the blocks of another one on the disk; a later change of either does not reach the other.

    Args:
        source: The file to share, open for reading.
        target: The empty file, open for writing.

    Returns:
        Whether the file system can do this (Btrfs, XFS); if not, ``target`` is still empty.
    """
    try:
        from fcntl import ioctl

        ioctl(target.fileno(), FICLONE, source.fileno())
    except (ImportError, OSError):
        return False
    return True


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits, reading it in small pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_id(content: bytes) -> str:
    """Return the id that git gives to a file of this content (SHA-1, as the Hub reports for small files)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
