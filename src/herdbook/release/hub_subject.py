"""A repository on the Hub at one commit, as a release or as a model that one was made from. Imported when one is opened."""

from __future__ import annotations

import hashlib

from herdbook import hub
from herdbook.errors import DigestMismatchError, VerificationError
from herdbook.files import git_blob_id
from herdbook.release.subject import SMALL_BYTES, FileEntry, Reading
from herdbook.sources import purl

KEPT_BYTES = 256_000_000  # of small files that are kept in memory, to download each once


class HubSubject(Reading):
    """A repository on the Hub at one commit.

    Attributes:
        repo: ``owner/name`` as the Hub spells it.
        commit: The commit.
        remote: The Hub's description of the repository.

    Raises:
        GoneError: If the repository has no such revision.
        SourceError: If it cannot be read.
    """

    def __init__(self, repo: str, revision: str | None = None) -> None:
        super().__init__()
        self.remote = hub.resolve(repo, revision)
        self.repo, self.commit = self.remote.repo, self.remote.commit
        self.name = f"{self.repo}@{self.commit}"
        self.uri = str(purl.HubCommit(self.repo, self.commit))
        self.files = {
            file.name: FileEntry(file.size_bytes, file.sha256, file.git_blob) for file in self.remote.files
        }
        self._kept: dict[str, bytes] = {}
        self._kept_bytes = 0

    def read(self, name: str, limit: int = SMALL_BYTES) -> bytes:
        """Return a small file, see ``Subject``."""
        if name in self._kept and len(self._kept[name]) <= limit:
            return self._kept[name]
        content = super().read(name, limit)
        entry = self.entry(name)
        actual = hashlib.sha256(content).hexdigest() if entry.sha256 else git_blob_id(content)
        expected = entry.sha256 or entry.git_blob
        if actual != expected:
            raise DigestMismatchError(
                f"{self.name}: {name}", str(expected), actual, "The Hub serves other bytes than it describes."
            )
        with self.lock:
            if self._kept_bytes + len(content) <= KEPT_BYTES:
                self._kept[name] = content
                self._kept_bytes += len(content)
        return content

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return a part of a file, see ``Subject``."""
        entry, data = self.entry(name), bytearray()
        for first in range(start, stop, hub.RANGE_BYTES):
            last = min(stop, first + hub.RANGE_BYTES)
            piece, size = hub.read_file(self.repo, self.commit, name, first, last)
            if size != entry.size_bytes or len(piece) != last - first:
                raise VerificationError(
                    f"{self.name}: {name}: the Hub states a size of {entry.size_bytes} bytes, but serves {size}"
                )
            data += piece
        self.count(len(data))
        return bytes(data)

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file, see ``Subject``."""
        return self.entry(name).sha256 or hashlib.sha256(self.read(name)).hexdigest()
