"""Routers drawn at random. Without torch, so that making them needs no more memory than a copy."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def random_rows(gate: str, name: str, shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Return a router drawn at random: standard normal, or uniform within 1 / sqrt(hidden) of zero.

    Args:
        gate: ``random`` or ``uniform_random``.
        name: The tensor's name, which seeds the draw together with ``seed``, so that order and threads do not matter.
        shape: ``(experts, hidden)``.
        seed: The recipe's seed.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")
    source = np.random.Generator(np.random.Philox(key=key))
    if gate == "random":
        return source.standard_normal(shape, dtype=np.float32)
    bound = np.float32(1 / math.sqrt(shape[1]))
    return (source.random(shape, dtype=np.float32) * 2 - 1) * bound


def as_bytes(rows: NDArray[np.float32], dtype: str) -> bytes:
    """Return float32 numbers as bytes of a dtype (``BF16``, ``F16``, ``F32``), rounded to nearest, ties to even."""
    if dtype != "BF16":
        converted: Any = rows.astype({"F16": "<f2", "F32": "<f4"}[dtype])
        return bytes(converted.tobytes())
    bits = rows.astype("<f4").view("<u4")
    even = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype("<u2").tobytes()
