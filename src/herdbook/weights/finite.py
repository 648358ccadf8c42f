"""Whether all numbers of a tensor are finite, from its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import CheckpointError
from herdbook.weights.dtypes import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from herdbook.weights.checkpoint import Span
    from herdbook.weights.digests import Piece

# The bits of a float's exponent, by the dtype codes of safetensors. E4M3 has no infinities, and one NaN: all bits but the sign are set.
EXPONENTS = {
    "BF16": 0x7F80,
    "F16": 0x7C00,
    "F32": 0x7F800000,
    "F64": 0x7FF0000000000000,
    "F8_E4M3": 0x7F,
    "F8_E5M2": 0x7C,
}
BLOCK = 1 << 16  # elements that are looked at together: their bits stay in the processor's cache


def finite(pieces: Iterable[Piece], span: Span, what: str) -> Iterator[Piece]:
    """Pass on a tensor's pieces, each of whole elements, while checking that all numbers are finite.

    Args:
        pieces: The tensor's bytes.
        span: The tensor.
        what: The file, for error messages.

    Raises:
        CheckpointError: If a number is not finite.
    """
    for piece in pieces:
        if not all_finite(piece, span.dtype):
            raise CheckpointError(
                f"{what}: tensor {span.name} contains NaN or infinite values. It cannot be used: pick another "
                "revision, or report it to its author."
            )
        yield piece


def all_finite(data: Piece, dtype: str) -> bool:
    """Return whether all numbers are finite; those of a dtype without NaN and infinities are.

    Nothing is decoded: a float is NaN or infinite if all bits of its exponent are set.

    Args:
        data: Whole elements.
        dtype: safetensors' code of their dtype.
    """
    import numpy as np

    exponent = EXPONENTS.get(dtype)
    if exponent is None:
        return True
    numbers = np.frombuffer(data, f"<u{ITEM_BYTES[dtype]}")
    bits = np.empty(min(BLOCK, numbers.size), numbers.dtype)
    blocks = (numbers[start : start + BLOCK] for start in range(0, numbers.size, BLOCK))
    return all(np.bitwise_and(block, exponent, out=bits[: block.size]).max() != exponent for block in blocks)
