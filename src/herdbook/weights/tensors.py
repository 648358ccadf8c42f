"""Tensors from and to bytes, by safetensors' codes of dtypes: the functions on torch that all steps share."""

from __future__ import annotations

import hashlib

import torch

from herdbook.errors import CheckpointError
from herdbook.weights.finite import all_finite

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
CODES = {dtype: code for code, dtype in DTYPES.items()}


def from_bytes(data: bytes | bytearray, dtype: str, shape: tuple[int, ...], what: str) -> torch.Tensor:
    """Return a tensor over ``data`` (little-endian, row by row), without a copy if ``data`` is writable.

    Args:
        data: The tensor's bytes.
        dtype: safetensors' code of its dtype.
        shape: Its shape.
        what: The tensor, for error messages.

    Raises:
        CheckpointError: If the dtype is not one of ``DTYPES``, or a value is NaN or infinite.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"{what}: dtype {dtype} is not supported; expected one of {', '.join(DTYPES)}")
    if not all_finite(data, dtype):
        raise CheckpointError(f"{what}: contains NaN or infinite values")
    held = data if isinstance(data, bytearray) else bytearray(data)
    return torch.frombuffer(held, dtype=DTYPES[dtype]).reshape(shape)


def to_bytes(tensor: torch.Tensor) -> bytes:
    """Return a tensor's data as bytes, little-endian, row by row."""
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def finite_bytes(tensor: torch.Tensor, what: str) -> bytes:
    """Return a computed tensor's data as bytes.

    Raises:
        CheckpointError: If a value is NaN or infinite, since the dtype cannot represent it; the message names the tensor, ``what``.
    """
    dtype, data = CODES[tensor.dtype], to_bytes(tensor)
    if not all_finite(data, dtype):
        raise CheckpointError(
            f"{what}: has values that {dtype} cannot represent; choose bfloat16 or float32 as dtype, or another source"
        )
    return data


def sha256_tensor(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes, as records contain it."""
    return hashlib.sha256(to_bytes(tensor)).hexdigest()


def generator(seed: int, name: str) -> torch.Generator:
    """Return a generator of random numbers that depends on a seed and a tensor's name alone."""
    return torch.Generator().manual_seed(int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:15], 16))
