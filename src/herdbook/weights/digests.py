"""SHA-256 of a file and of each of its tensors, computed while the file is read or written."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from concurrent.futures import Future

# Bytes of a tensor. A view may be of a buffer that is reused: it stays as it is until the next but one is requested.
Piece = bytes | bytearray | memoryview


class Digests:
    """The digests of a file and of its tensors, each computed in a thread of its own.

    Hashing releases the interpreter's lock, so a piece is hashed while it is written and the next one is read. A piece is
    done with once the next one is given, so that its buffer can be reused: at this speed, fresh memory for each piece
    costs as much as hashing it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._file, self._tensor = hashlib.sha256(), hashlib.sha256()
        self._pending: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def header(self, piece: Piece) -> None:
        """Add bytes that belong to no tensor."""
        self._wait()
        self._pending.append(self._pool.submit(self._file.update, piece))

    def update(self, piece: Piece) -> None:
        """Add the next bytes of a tensor."""
        self.header(piece)
        self._pending.append(self._pool.submit(self._tensor.update, piece))

    def end_tensor(self) -> str:
        """Return the digest of the tensor whose last bytes were added."""
        self._wait()
        sha256, self._tensor = self._tensor.hexdigest(), hashlib.sha256()
        return sha256

    def end_file(self) -> str:
        """Return the digest of all bytes."""
        self._wait()
        return self._file.hexdigest()

    def _wait(self) -> None:
        while self._pending:
            self._pending.pop().result()
