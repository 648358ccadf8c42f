"""A cache in a folder: on one machine, or on a file system that several machines share."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.cache.store import WHERE, StoredFile
from herdbook.errors import CacheError
from herdbook.files import CHUNK_BYTES, sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

LINKED_BYTES = 1 << 20  # smaller files are copied, so that few names share an inode
PRIVATE = "gated/"


class FolderStore:
    """A store in a folder.

    Only the owner can read gated entries: their folders have mode 0700, their files 0600. All others follow the umask, and
    the two folders of entries have the mode of the cache's own folder, so that a group can share it.

    Large files are hard links to the results where the file system allows it and we own the file: nothing writes to
    either in place. All others are copies.
    """

    at_once = 1
    private = True

    def __init__(self, root: Path) -> None:
        self.root, self.place = root, str(root)

    def check(self, *, by_writing: bool = True) -> None:
        """Check that the folder exists and, if a file may be written for that, is writable."""
        if self.root.exists() and not self.root.is_dir():
            raise CacheError(f"{self.root}: is no folder. Name a folder or s3://bucket/prefix: {WHERE}")
        if not self.root.is_dir():
            raise CacheError(
                f"{self.root}: the cache's folder does not exist. Mount it, create it with `mkdir -p {shlex.quote(str(self.root))}`, or "
                f"name another one: {WHERE}"
            )
        if not by_writing:
            return
        try:
            for name in ("open", "gated"):
                self._folder(self.root / name)
                probe = self.root / name / f".{secrets.token_hex(8)}.part"
                probe.touch()
                probe.unlink()
        except OSError as error:
            raise CacheError(
                f"{self.root}: the cache is not writable: {error.strerror}. Get write permission, or name another "
                f"one: {WHERE}"
            ) from error

    def exists(self, name: str) -> bool:
        """Return whether a file exists and we may read it."""
        return os.access(self.root / name, os.R_OK)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if it does not exist or we may not read it."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None  # `check` makes a file where entries are folders

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless its name is taken; return whether it was written."""
        temporary = self._temporary(name)
        try:
            self._fill(temporary, name, content)
            os.link(temporary, self.root / name)  # fails if the name is taken, and never shows half a file
        except FileExistsError:
            return False
        except OSError as error:
            raise self._broken(error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def write(self, name: str, content: bytes) -> None:
        """Write a small file; replace one of that name."""
        temporary = self._temporary(name)
        try:
            self._fill(temporary, name, content)
            temporary.replace(self.root / name)
        except OSError as error:
            raise self._broken(error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def put(self, source: Path, name: str) -> str | None:
        """Store a file: as a hard link if it is ours and large, else as a copy, whose SHA-256 is returned."""
        from herdbook import hub

        temporary, sha256 = self._temporary(name), None
        try:
            # a symbolic link in the results leads to a file of others, who may write to it; the Hub's cache never does
            ours = not source.is_symlink() or (hub.is_in_cache(source) and not name.startswith(PRIVATE))
            real = source.resolve(strict=True)
            if not (ours and _linked(real, temporary)):
                with real.open("rb") as file, temporary.open("xb") as copy:
                    sha256 = _copy(file, copy)
            self._protect(temporary, name)
            temporary.replace(self.root / name)
        except OSError as error:
            raise self._broken(error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return sha256

    def get(self, name: str, target: Path) -> str:
        """Write a stored file to ``target``; return its SHA-256, computed while reading."""
        source = self.root / name
        try:
            if _linked(source, target):
                return sha256_file(target)
            with source.open("rb") as file, target.open("xb") as copy:
                if name.startswith(PRIVATE):
                    target.chmod(0o600)
                return _copy(file, copy)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._broken(error) from error

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of a file, read in full; None if it does not exist."""
        try:
            return sha256_file(self.root / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._broken(error) from error

    def names(self, below: str) -> Iterator[StoredFile]:
        """Yield the files below a name, as far as we may list them."""
        start = self.root / below
        for folder, _, files in os.walk(start):
            for file in files:
                path = Path(folder) / file
                with suppress(FileNotFoundError):
                    status = path.lstat()
                    name = path.relative_to(self.root).as_posix()
                    yield StoredFile(name, status.st_size, status.st_mtime)

    def remove(self, name: str) -> None:
        """Remove a file if it exists, and the folders that become empty."""
        path = self.root / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._broken(error) from error
        for folder in list(path.parents)[: name.count("/") - 1]:
            with suppress(OSError):  # it is not empty
                folder.rmdir()

    def _temporary(self, name: str) -> Path:
        """Return a temporary path beside a file; create the folder."""
        path = self.root / name
        try:
            for folder in reversed(list(path.parents)[: name.count("/")]):
                self._folder(folder)
        except OSError as error:
            raise self._broken(error) from error
        return path.with_name(f".{secrets.token_hex(8)}.part")

    def _folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        private = folder.relative_to(self.root).as_posix().startswith(PRIVATE)
        with suppress(FileExistsError):
            folder.mkdir(0o700 if private else 0o777)
            if folder.parent == self.root:
                folder.chmod(self.root.stat().st_mode & 0o7777)

    def _fill(self, temporary: Path, name: str, content: bytes) -> None:
        with temporary.open("xb") as file:
            self._protect(temporary, name)
            file.write(content)
            if content:  # of an empty file only the modification time counts
                file.flush()
                os.fsync(file.fileno())

    def _protect(self, path: Path, name: str) -> None:
        """Make a gated file readable for its owner alone; if it is a hard link to a result, that includes the result."""
        if name.startswith(PRIVATE):
            path.chmod(0o600)

    def _broken(self, error: OSError) -> CacheError:
        problem = (
            "is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else f"failed: {error.strerror or error}"
        )
        return CacheError(f"the cache {problem} ({error.filename or self.root})")


def _linked(source: Path, target: Path) -> bool:
    """Make a hard link to a large file that we own; return whether that was possible."""
    status = source.stat()
    if status.st_size < LINKED_BYTES or status.st_uid != os.geteuid():
        return False
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}:
            return False
        raise
    return True


def _copy(source: BinaryIO, target: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := source.read(CHUNK_BYTES):
        digest.update(piece)
        target.write(piece)
    target.flush()
    os.fsync(target.fileno())
    return digest.hexdigest()
