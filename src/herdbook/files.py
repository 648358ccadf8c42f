"""Atomic writing of files: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 1 << 22
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
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_writer(path) as file:
        file.write(text.encode())


def dump_json(value: Any) -> str:
    """Render JSON for people and for digests: sorted keys, indented by two spaces, with a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON (see ``dump_json``), atomically."""
    write_text(path, dump_json(value))


def link(target: Path, path: Path) -> None:
    """Make ``path`` a symbolic link to ``target``, atomically; the link is relative if ``target`` is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.part"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target if target.is_absolute() else os.path.relpath(target, path.parent))
    temporary.replace(path)


def clone(source: BinaryIO, target: BinaryIO) -> bool:
    """Let an empty file share the blocks of another one on the disk; a later change of either does not reach the other.

    Args:
        source: The file to share, open for reading.
        target: The empty file, open for writing.

    Returns:
        Whether the file system can do this (Btrfs, XFS); if not, ``target`` is still empty.
    """
    try:
        fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
    except OSError:
        return False
    return True


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits, reading it in small pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_id(content: bytes) -> str:
    """Return the id that git gives to a file of this content (SHA-1, as the Hub reports for small files)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
