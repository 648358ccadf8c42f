"""The interface of a cache's storage. Names are relative, with slashes; a file is complete or absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHERE = (
    "--cache, $HERDBOOK_CACHE or `cache` in config/config.yaml, whichever is set"  # where a cache is named
)


@dataclass(frozen=True)
class StoredFile:
    """A file in a store.

    Args:
        name: Its name.
        size_bytes: Its size.
        written: When it was last written, in seconds since 1970.
    """

    name: str
    size_bytes: int
    written: float


class Store(Protocol):
    """Files by name. All methods raise CacheError if the storage fails."""

    place: str
    at_once: int  # how many requests are worth sending at once
    private: bool  # whether gated files can be restricted to their owner

    def check(self) -> None:
        """Check that the storage exists and is writable."""

    def exists(self, name: str) -> bool:
        """Return whether a file exists and we may read it."""

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if it does not exist or we may not read it."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless its name is taken; return whether it was written."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file; replace one of that name."""

    def put(self, source: Path, name: str) -> str | None:
        """Store a file, replacing one of that name; return its SHA-256, or None if the file was linked unread."""

    def get(self, name: str, target: Path) -> str:
        """Write a stored file to ``target``; return its SHA-256. Raises FileNotFoundError if it does not exist."""

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of a file, read in full; None if it does not exist."""

    def names(self, below: str) -> Iterator[StoredFile]:
        """Yield the files whose names begin with ``below`` and a slash, as far as we may list them."""

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
