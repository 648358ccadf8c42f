"""A matrix to the tensors that it is stored as, and back, in each format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.quantization.compressed_tensors import CompressedTensors
from herdbook.quantization.mlx import Mlx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from herdbook.quantization.scheme import Scheme


def blocks(weight: torch.Tensor, scheme: Scheme, part: str) -> Iterator[torch.Tensor]:
    """Yield one of the tensors that a matrix is stored as, some rows at a time.

    Args:
        weight: The matrix, of finite numbers.
        scheme: The format.
        part: The last part of the tensor's name.
    """
    match scheme:
        case Mlx():
            from herdbook.steps.compress import mlx

            yield from mlx.blocks(weight, scheme, part)
        case CompressedTensors():
            from herdbook.steps.compress import compressed_tensors

            yield compressed_tensors.encode(weight, scheme)[part]


def encode(weight: torch.Tensor, scheme: Scheme) -> dict[str, torch.Tensor]:
    """Return all tensors that a matrix is stored as, by the last part of their names; see ``blocks``."""
    import torch

    parts = scheme.stored("F32", tuple(weight.shape))
    return {part: torch.cat(list(blocks(weight, scheme, part))) for part in parts}


def decode(stored: Mapping[str, torch.Tensor], scheme: Scheme) -> torch.Tensor:
    """Return the matrix that a runtime computes with, in the dtype that it multiplies encoded numbers by their scales in.

    Args:
        stored: The tensors that it is stored as, by the last part of their names.
        scheme: The format.
    """
    if isinstance(scheme, Mlx):
        from herdbook.steps.compress import mlx

        return mlx.decode(stored, scheme)
    from herdbook.steps.compress import compressed_tensors

    assert isinstance(scheme, CompressedTensors)  # noqa: S101 - there is no other format
    return compressed_tensors.decode(stored, scheme)


def dtypes(scheme: Scheme) -> dict[str, torch.dtype]:
    """Return the dtypes of a format's encoded numbers, by safetensors' codes."""
    if isinstance(scheme, Mlx):
        from herdbook.steps.compress import mlx

        return mlx.DTYPES
    from herdbook.steps.compress import compressed_tensors

    return compressed_tensors.DTYPES
