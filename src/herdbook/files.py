"""Files that are whole or absent: written beside their place, then renamed over it."""

from __future__ import annotations

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


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; rename it over ``path`` when the block ends well.

    A kill or an error leaves ``path`` as it was. A symbolic link at ``path`` is replaced, never written through.

    Args:
        path: Where the file shall be. Its folder is made if it is missing.

    Yields:
        A binary file object, open for reading and writing.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the temporary file is gone by then.
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
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_writer(path) as file:
        file.write(text.encode())


def dump_json(value: Any) -> str:
    """Render JSON for people and for digests alike: sorted keys, two spaces, a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON (see ``dump_json``), whole or not at all."""
    write_text(path, dump_json(value))


def link(target: Path, path: Path) -> None:
    """Make ``path`` a symbolic link to ``target``, atomically: relative if ``target`` is, else absolute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.part"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target if target.is_absolute() else os.path.relpath(target, path.parent))
    temporary.replace(path)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits, reading it in small pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_id(content: bytes) -> str:
    """Return the id that git gives to a file of this content (SHA-1, as the Hub reports for small files)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
