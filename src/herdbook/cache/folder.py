"""A cache in a folder: of one machine, or on a file system that several share."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.cache.store import StoredFile
from herdbook.errors import CacheError
from herdbook.files import CHUNK_BYTES, sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

LINKED_BYTES = 1 << 20  # smaller files are copied, so that few names share an inode
PRIVATE = "gated/"


class FolderStore:
    """A store in a folder.

    What is gated is for its owner alone: entries have mode 0700, their files 0600. All else follows the umask, and the two
    folders of entries have the rights of the cache's own, so that a group may share it.

    Large files are hard links to the results where the file system allows it and the file is ours: nothing writes to
    either in place. All else is a copy.
    """

    at_once = 1

    def __init__(self, root: Path) -> None:
        self.root, self.place = root, str(root)

    def check(self) -> None:
        """Check that the folder is there, and can be written to."""
        if not self.root.is_dir():
            raise CacheError(
                f"{self.root}: the cache is missing: there is no such folder. Mount it, make it with `mkdir`, or leave "
                "`cache` out of the configuration."
            )
        try:
            for name in ("open", "gated"):
                self._folder(self.root / name)
                probe = self.root / name / f".{secrets.token_hex(8)}.part"
                probe.touch()
                probe.unlink()
        except OSError as error:
            raise CacheError(
                f"{self.root}: the cache cannot be written to: {error.strerror}. Ask for the right, or leave `cache` out "
                "of the configuration."
            ) from error

    def exists(self, name: str) -> bool:
        """Say whether a file is there, for us to read."""
        return os.access(self.root / name, os.R_OK)

    def read(self, name: str) -> bytes | None:
        """Return a small file; None if there is none that we may read."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, PermissionError):
            return None

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file if there is none of this name, and say whether this was so."""
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
        """Write a small file, over one that may be there."""
        temporary = self._temporary(name)
        try:
            self._fill(temporary, name, content)
            temporary.replace(self.root / name)
        except OSError as error:
            raise self._broken(error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def put(self, source: Path, name: str) -> str | None:
        """Put a file here: a link to it if it is ours and large, else a copy, whose SHA-256 is returned."""
        from herdbook import hub

        temporary, sha256 = self._temporary(name), None
        try:
            # what is a link in the results belongs to others, who may write to it; the Hub's cache never does
            ours = not source.is_symlink() or (hub.holds(source) and not name.startswith(PRIVATE))
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
        """Make a file of one that is here, and return its SHA-256 as it was read."""
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
        """Return the SHA-256 of a file, read in full; None if there is none."""
        try:
            return sha256_file(self.root / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._broken(error) from error

    def names(self, below: str) -> Iterator[StoredFile]:
        """Yield the files below a name, as far as we may see them."""
        start = self.root / below
        for folder, _, files in os.walk(start):
            for file in files:
                path = Path(folder) / file
                with suppress(FileNotFoundError):
                    found = path.lstat()
                    name = path.relative_to(self.root).as_posix()
                    yield StoredFile(name, found.st_size, found.st_mtime)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there, and folders that are empty then."""
        path = self.root / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._broken(error) from error
        for folder in list(path.parents)[: name.count("/") - 1]:
            with suppress(OSError):  # it is not empty
                folder.rmdir()

    def _temporary(self, name: str) -> Path:
        """Return a name beside a file, and make the folder."""
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
            if content:  # one that is empty says when it was written, no more
                file.flush()
                os.fsync(file.fileno())

    def _protect(self, path: Path, name: str) -> None:
        """Take all rights of others away from what is gated: from the results too, if the file is a link to them."""
        if name.startswith(PRIVATE):
            path.chmod(0o600)

    def _broken(self, error: OSError) -> CacheError:
        what = (
            "is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else f"failed: {error.strerror or error}"
        )
        place = error.filename or self.root
        return CacheError(f"the cache {what} ({place})")


def _linked(source: Path, target: Path) -> bool:
    """Make a hard link of a large file of ours; say whether that could be done."""
    found = source.stat()
    if found.st_size < LINKED_BYTES or found.st_uid != os.geteuid():
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
