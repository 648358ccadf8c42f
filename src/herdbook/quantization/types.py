"""The types of tensors in a GGUF, as data: ggml's names and numbers, the block that each encodes, and its size."""

from __future__ import annotations

from dataclasses import dataclass

UNWEIGHED = frozenset(
    ("Q8_0", "TQ1_0", "TQ2_0", "MXFP4")
)  # whose encoders in ggml ignore an importance matrix


@dataclass(frozen=True)
class TensorType:
    """A way to encode the rows of a tensor.

    Args:
        name: Its name in ggml.
        number: Its number in a file (``GGML_TYPE_*``).
        block: How many weights are encoded together; a row is a whole number of blocks.
        block_bytes: The size of an encoded block.
        narrower: What llama.cpp takes for rows that are no whole number of blocks; None if that is F16.
        needs_matrix: Whether llama.cpp encodes it only with an importance matrix, since the result would be useless.
    """

    name: str
    number: int
    block: int
    block_bytes: int
    narrower: str | None = None
    needs_matrix: bool = False

    @property
    def weighs(self) -> bool:
        """Whether its encoder weighs errors by an importance matrix."""
        return not self.is_full_width and self.name not in UNWEIGHED

    @property
    def is_full_width(self) -> bool:
        """Whether each weight is a floating-point number of its own."""
        return self.block == 1

    def fits(self, width: int) -> bool:
        """Return whether a row of ``width`` weights is a whole number of blocks."""
        return width % self.block == 0

    def row_bytes(self, width: int) -> int:
        """Return the size of an encoded row of ``width`` weights."""
        return width // self.block * self.block_bytes


TYPES = {
    one.name: one
    for one in (
        TensorType("F32", 0, 1, 4),
        TensorType("F16", 1, 1, 2),
        TensorType("BF16", 30, 1, 2),
        TensorType("Q4_0", 2, 32, 18),
        TensorType("Q4_1", 3, 32, 20),
        TensorType("Q5_0", 6, 32, 22),
        TensorType("Q5_1", 7, 32, 24),
        TensorType("Q8_0", 8, 32, 34),
        TensorType("Q2_K", 10, 256, 84, "Q4_0"),
        TensorType("Q3_K", 11, 256, 110, "Q4_0"),
        TensorType("Q4_K", 12, 256, 144, "Q5_0"),
        TensorType("Q5_K", 13, 256, 176, "Q5_1"),
        TensorType("Q6_K", 14, 256, 210, "Q8_0"),
        TensorType("IQ1_S", 19, 256, 50, "IQ4_NL", needs_matrix=True),
        TensorType("IQ1_M", 29, 256, 56, "IQ4_NL", needs_matrix=True),
        TensorType("IQ2_XXS", 16, 256, 66, "IQ4_NL", needs_matrix=True),
        TensorType("IQ2_XS", 17, 256, 74, "IQ4_NL", needs_matrix=True),
        TensorType("IQ2_S", 22, 256, 82, "IQ4_NL", needs_matrix=True),
        TensorType("IQ3_XXS", 18, 256, 98, "IQ4_NL", needs_matrix=True),
        TensorType("IQ3_S", 21, 256, 110, "IQ4_NL"),
        TensorType("IQ4_NL", 20, 32, 18),
        TensorType("IQ4_XS", 23, 256, 136, "IQ4_NL"),
        TensorType("TQ1_0", 34, 256, 54, "Q4_0"),
        TensorType("TQ2_0", 35, 256, 66, "Q4_0"),
        TensorType("MXFP4", 39, 32, 17),
    )
}


def fitting(name: str, width: int) -> str:
    """Return a type, or llama.cpp's substitute for it if a row of ``width`` weights is no whole number of its blocks."""
    kind = TYPES[name]
    if kind.fits(width):
        return name
    substitute = kind.narrower or name
    return substitute if TYPES[substitute].fits(width) else "F16"


def encoding(name: str, matrix: str | None) -> tuple[str, str | None]:
    """Return what decides the bytes of a tensor besides its weights: its type, and the importance matrix if its encoder weighs.

    Args:
        name: The type.
        matrix: The key of the file's importance matrix; None if it has none.
    """
    return name, matrix if TYPES[name].weighs else None
