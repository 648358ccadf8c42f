"""What a cache needs of the place it lies in. Names are relative, with slashes; what is written is whole or absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
    """A place that holds files by name. All methods raise CacheError if the place cannot do what is asked."""

    place: str
    at_once: int  # how many questions are worth asking at once

    def check(self) -> None:
        """Check that the place is there, and can be written to."""

    def exists(self, name: str) -> bool:
        """Say whether a file is there, for us to read."""

    def read(self, name: str) -> bytes | None:
        """Return a small file; None if there is none that we may read."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file if there is none of this name, and say whether this was so."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, over one that may be there."""

    def put(self, source: Path, name: str) -> str | None:
        """Put a file here, over one that may be there, and return its SHA-256; None if it was not read for that."""

    def get(self, name: str, target: Path) -> str:
        """Make a file of one that is here, and return its SHA-256 as it was read. FileNotFoundError if there is none."""

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of a file, read in full; None if there is none."""

    def names(self, below: str) -> Iterator[StoredFile]:
        """Yield the files whose names begin with ``below`` and a slash, as far as we may see them."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
