"""The schemes of compressed-tensors: a matrix to the tensors that it is stored as, and back.

Both follow from the weights alone. The scale of a run of weights is its largest absolute value over half the range of the encoded
numbers, and each weight becomes the nearest encoded number of its quotient by the scale, all in the dtype of the weights, as
llm-compressor computes (measured against 0.14.0.1, bit by bit, in ``tests/data/compress``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from herdbook.quantization.compressed_tensors import PACKED, SCALE, SHAPE, WEIGHT
from herdbook.quantization.scheme import WORD_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.quantization.compressed_tensors import CompressedTensors

FP8 = torch.float8_e4m3fn
DTYPES = {"F8_E4M3": FP8, "I32": torch.int32}  # of encoded numbers, by safetensors' codes
FP8_LARGEST = 448.0


def encode(weight: torch.Tensor, scheme: CompressedTensors) -> dict[str, torch.Tensor]:
    """Return the tensors that a matrix is stored as, by the last part of their names; of one with equal bits, always the same.

    Args:
        weight: The matrix, of finite numbers.
        scheme: The scheme.
    """
    rows, columns = weight.shape
    grouped = weight.reshape(rows, -1, scheme.group or columns)
    least, most = _range(scheme)
    largest = grouped.abs().amax(dim=-1, keepdim=True)
    scale = largest / ((most - least) / 2)
    # a run of zeros has any scale
    scale = torch.where(scale == 0, torch.finfo(weight.dtype).eps, scale)
    # a negative zero becomes a positive one
    quotient = ((grouped / scale) + 0.0).clamp(least, most).reshape(rows, columns)
    scales = scale.reshape(rows, -1)
    if not scheme.is_packed:
        return {WEIGHT: quotient.to(FP8), SCALE: scales}
    integers = quotient.round().to(torch.int32)
    return {PACKED: _pack(integers, scheme.bits), SCALE: scales, SHAPE: torch.tensor([rows, columns])}


def decode(stored: Mapping[str, torch.Tensor], scheme: CompressedTensors) -> torch.Tensor:
    """Return the matrix that servers compute with, in the dtype of its scales.

    Args:
        stored: The tensors that it is stored as, by the last part of their names.
        scheme: The scheme.
    """
    scale = stored[SCALE]
    numbers = _unpack(stored[PACKED], scheme.bits) if scheme.is_packed else stored[WEIGHT]
    rows, columns = numbers.shape
    grouped = numbers.to(scale.dtype).reshape(rows, -1, scheme.group or columns)
    return (grouped * scale.unsqueeze(-1)).reshape(rows, columns)


def _range(scheme: CompressedTensors) -> tuple[float, float]:
    """Return the least and the largest encoded number."""
    if not scheme.is_packed:
        return -FP8_LARGEST, FP8_LARGEST
    half = 1 << (scheme.bits - 1)
    return float(-half), float(half - 1)


def _pack(integers: torch.Tensor, bits: int) -> torch.Tensor:
    """Return signed integers of some bits as 32-bit integers, the first in the lowest bits, each with half the range added."""
    rows, columns = integers.shape
    each = WORD_BITS // bits
    raised = (integers + (1 << (bits - 1))).reshape(rows, columns // each, each)
    shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32)
    # the highest bits make the number negative, as its bits are
    return torch.bitwise_left_shift(raised, shifts).sum(dim=-1, dtype=torch.int32)


def _unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the signed integers that ``_pack`` packed."""
    shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32)
    fields = torch.bitwise_right_shift(packed.unsqueeze(-1), shifts) & ((1 << bits) - 1)
    return (fields - (1 << (bits - 1))).reshape(packed.shape[0], -1)
