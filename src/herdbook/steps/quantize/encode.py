"""Rows of weights to the bytes of a GGUF type, by ggml's reference quantizers (libgguf), and full-width bytes to rows.

Rows are encoded one by one, so neither the number of threads nor the size of a piece changes a byte. Between machines
the bytes agree on x86-64; builds for arm64 contract multiplications and additions and differ in a few bytes.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import libgguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from herdbook.errors import CheckpointError, StepError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from numpy.typing import NDArray

# libgguf 0.2.2 starts one thread per core for 64 or more rows; with fewer rows, the number of threads is under our control.
PIECE_ROWS = 32

BLOCK_BYTES = 1 << 25  # the part of a tensor, as float32, that is in memory at a time

# Types whose tables libgguf has filled.
_PREPARED: set[int] = set()
_PREPARING = Lock()

FULL_WIDTH = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)


def block_rows(width: int) -> int:
    """Return how many rows of ``width`` weights are processed at a time."""
    return max(PIECE_ROWS, BLOCK_BYTES // (4 * width))


def encode(
    rows: NDArray[np.float32],
    kind: Any,
    pool: Executor | None,
    what: str,
    weights: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Encode rows as a GGUF type.

    Args:
        rows: ``(n, width)`` float32.
        kind: The type (``GGMLQuantizationType``).
        pool: The threads to use; None for the caller's thread.
        what: The tensor's name in errors.
        weights: The weight of each column's error, by an importance matrix; None if there is none.

    Returns:
        ``(n, bytes_per_row)`` uint8.

    Raises:
        CheckpointError: If a weight is infinite or not a number.
        StepError: If the type needs an importance matrix.
    """
    if not np.isfinite(rows).all():
        raise CheckpointError(
            f"{what}: has weights that are infinite or not a number, so the model is unusable"
        )
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    if kind == GGMLQuantizationType.F32:
        return rows.view(np.uint8)
    if weights is None and libgguf.quantize_requires_imatrix(kind):  # ggml would end the process
        raise StepError(
            f"{what}: the type {kind.name} needs an importance matrix, and there is none for this tensor"
        )
    _prepare(kind)

    def encode_piece(first: int) -> NDArray[np.uint8]:
        encoded = libgguf.quantize_rows(rows[first : first + PIECE_ROWS], int(kind), weights)
        return np.asarray(encoded).view(np.uint8)

    starts = range(0, len(rows), PIECE_ROWS)
    pieces = list(pool.map(encode_piece, starts) if pool else map(encode_piece, starts))
    return np.concatenate(pieces)


def _prepare(kind: Any) -> None:
    """Let libgguf fill its tables of a type, which it does at the first row: if threads begin together, it crashes or errs (0.2.2)."""
    with _PREPARING:
        if int(kind) not in _PREPARED:
            width = GGML_QUANT_SIZES[kind][0]
            libgguf.quantize_rows(np.zeros((1, width), np.float32), int(kind), np.ones(width, np.float32))
            _PREPARED.add(int(kind))


def decode_full_width(data: NDArray[np.uint8], kind: Any) -> NDArray[np.float32]:
    """Turn bytes of F32, F16 or BF16 into float32, exactly.

    Args:
        data: ``(n, bytes_per_row)`` uint8, little-endian.
        kind: One of ``FULL_WIDTH``.

    Returns:
        ``(n, width)`` float32.
    """
    if kind == GGMLQuantizationType.F32:
        return data.view("<f4").astype(np.float32, copy=False)
    if kind == GGMLQuantizationType.F16:
        return data.view("<f2").astype(np.float32)
    wide: np.ndarray = np.left_shift(data.view("<u2"), np.uint32(16), dtype=np.uint32)
    return wide.view(np.float32)
