"""Casting a tensor's bytes to another dtype."""

from __future__ import annotations

from herdbook.weights.tensors import DTYPES, finite_bytes, from_bytes


def cast(data: bytes | bytearray, dtype: str, shape: tuple[int, ...], target: str, what: str) -> bytes:
    """Return a tensor's bytes in another dtype, ``target``, rounded to nearest; ``what`` names the tensor in errors.

    Raises:
        CheckpointError: If a value exceeds the range of the new dtype; NaN and infinities are refused too.
    """
    return finite_bytes(from_bytes(data, dtype, shape, what).to(DTYPES[target]), what)
