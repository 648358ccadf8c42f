"""The formats of MLX: matrices to the tensors that they are stored as, and back.

Both follow from the weights alone, with the bits of ``mlx.core.quantize`` on a CPU (measured against mlx 0.32.4, in
``tests/data/compress``): all is computed in float32, and scale and bias are rounded to the dtype of the weights when they are stored,
after the weights were divided by them. Of a group, that end which is farther from zero comes out exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from herdbook.quantization.mlx import BIASES, GROUP, SCALES, WEIGHT
from herdbook.quantization.scheme import WORD_BITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.quantization.mlx import Mlx

DTYPES = {"U32": torch.int32}  # of encoded numbers, by safetensors' codes; the same bits
SMALLEST = 1e-7  # of the steps before they are adjusted; that of a group of zeros
AT_ONCE = (
    1 << 20
)  # weights that are encoded or decoded together: a large matrix needs no more memory for it than a small one


def encode(weight: torch.Tensor, scheme: Mlx) -> dict[str, torch.Tensor]:
    """Return the tensors that a matrix is stored as, by the last part of their names; of one with equal bits, always the same.

    Args:
        weight: The matrix, of finite numbers, shape ``(rows, columns)``.
        scheme: The format.

    Returns:
        The packed numbers (int32, with the bits of uint32), scales and biases (in the dtype of the weights).
    """
    found = {part: list(blocks(weight, scheme, part)) for part in (WEIGHT, SCALES, BIASES)}
    return {part: torch.cat(rows) for part, rows in found.items()}


def blocks(weight: torch.Tensor, scheme: Mlx, part: str) -> Iterator[torch.Tensor]:
    """Yield one of the tensors that a matrix is stored as, some rows at a time; see ``encode``."""
    for rows in weight.split(_rows_at_once(weight.shape[1])):
        groups = rows.to(torch.float32).reshape(rows.shape[0], -1, GROUP)
        scale, bias = _line(groups, (1 << scheme.bits) - 1)
        if part == WEIGHT:
            numbers = ((groups - bias) / scale).round().clamp(0, (1 << scheme.bits) - 1)
            yield _pack(numbers.to(torch.int32).reshape(rows.shape[0], -1), scheme.bits)
        else:
            yield (scale if part == SCALES else bias).squeeze(-1).to(weight.dtype)


def decode(stored: Mapping[str, torch.Tensor], scheme: Mlx) -> torch.Tensor:
    """Return the matrix that a runtime computes with, in float32.

    Args:
        stored: The tensors that it is stored as, by the last part of their names.
        scheme: The format.
    """
    rows, groups = stored[SCALES].shape
    decoded = torch.empty(rows, groups * GROUP)
    step = _rows_at_once(groups * GROUP)
    for start in range(0, rows, step):
        some = {part: tensor[start : start + step] for part, tensor in stored.items()}
        numbers = _unpack(some[WEIGHT], scheme.bits).to(torch.float32).reshape(-1, groups, GROUP)
        scale, bias = (some[part].to(torch.float32).unsqueeze(-1) for part in (SCALES, BIASES))
        decoded[start : start + step] = (numbers * scale + bias).reshape(-1, groups * GROUP)
    return decoded


def _rows_at_once(columns: int) -> int:
    return max(1, AT_ONCE // columns)


def _line(groups: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale and the bias of each group: the numbers 0 to ``steps`` stand for bias + number * scale."""
    least, most = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    from_below = least.abs() > most.abs()
    scale = ((most - least) / steps).clamp(min=SMALLEST)
    scale = torch.where(from_below, scale, -scale)
    farther = torch.where(from_below, least, most)
    # the number of steps from zero, made whole, so that zero is one of the numbers
    whole = (farther / scale).round()
    moved = whole != 0
    scale = torch.where(moved, farther / torch.where(moved, whole, 1.0), scale)
    return scale, torch.where(moved, farther, 0.0)


def _pack(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """Return numbers of some bits as a stream of bits in 32-bit integers, the first in the lowest bits."""
    rows, columns = numbers.shape
    if WORD_BITS % bits == 0:
        shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32)
        fields = torch.bitwise_left_shift(numbers.reshape(rows, -1, WORD_BITS // bits), shifts)
        return fields.sum(dim=-1, dtype=torch.int32)
    streams = numbers.reshape(rows, -1, WORD_BITS).to(
        torch.int64
    )  # 32 numbers fill as many words as each has bits
    words = torch.zeros(rows, columns // WORD_BITS, bits, dtype=torch.int64)
    for place in range(WORD_BITS):
        word, offset = divmod(place * bits, WORD_BITS)
        words[..., word] |= streams[..., place] << offset & 0xFFFFFFFF
        if offset + bits > WORD_BITS:
            words[..., word + 1] |= streams[..., place] >> (WORD_BITS - offset)
    return words.reshape(rows, -1).to(torch.int32)


def _unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the numbers that ``_pack`` packed."""
    rows, mask = packed.shape[0], (1 << bits) - 1
    if WORD_BITS % bits == 0:
        shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32)
        return (torch.bitwise_right_shift(packed.unsqueeze(-1), shifts) & mask).reshape(rows, -1)
    words = packed.reshape(rows, -1, bits).to(torch.int64) & 0xFFFFFFFF
    numbers = torch.empty(rows, words.shape[1], WORD_BITS, dtype=torch.int32)
    for place in range(WORD_BITS):
        word, offset = divmod(place * bits, WORD_BITS)
        value = words[..., word] >> offset
        if offset + bits > WORD_BITS:
            value = value | words[..., word + 1] << (WORD_BITS - offset)
        numbers[..., place] = value & mask
    return numbers.reshape(rows, -1)
