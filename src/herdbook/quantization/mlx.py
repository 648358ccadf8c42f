"""The formats for Macs: MLX's affine quantization, as mlx-lm loads it.

Source: mlx 0.32.4 (``mlx.core.quantize``) for shapes and dtypes, mlx-lm 0.32.2 (``utils.py``) for names and settings. Every matrix is
encoded, embeddings and head, too, except routers and the gates of shared experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from herdbook.quantization.scheme import WORD_BITS, Library, Scheme, SchemeName, Stored

if TYPE_CHECKING:
    from collections.abc import Mapping

WEIGHT, SCALES, BIASES = "weight", "scales", "biases"
GROUP = 64  # mlx-lm's default
# mlx-lm reads the first of these; the Hub, and mlx-lm where the first is missing, the second.
KEYS = ("quantization", "quantization_config")


@dataclass(frozen=True)
class Mlx(Scheme):
    """An affine quantization of MLX: each group of a row has a scale and a bias, and its weights are integers without a sign."""

    library: ClassVar[Library] = "mlx"
    header: ClassVar[str] = "mlx"
    keys: ClassVar[tuple[str, ...]] = KEYS
    scales: ClassVar[str] = SCALES
    readers: ClassVar[str] = "programs for MLX"

    @property
    def numbers(self) -> str:
        """The last part of the name of a matrix's encoded numbers."""
        return WEIGHT

    def columns_in(self, elements: int) -> int:
        """Return how many encoded weights the elements of a row of the numbers' tensor hold; one may lie in two of them."""
        return elements * WORD_BITS // self.bits

    @property
    def runs_in_float32(self) -> bool:
        """Whether a runtime multiplies in float32: MLX's products of matrices do."""
        return True

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of a repository that has it."""
        return (self.library, f"{self.bits}-bit")

    @property
    def demand(self) -> str:
        """What the shape of a matrix must be, in a message."""
        return f"MLX encodes rows of multiples of {self.columns} weights"

    def stored(self, dtype: str, shape: tuple[int, ...]) -> Stored:
        """Return the tensors that a matrix, or several that are stacked, are stored as; see ``Scheme``."""
        *outer, columns = shape
        groups = (dtype, (*outer, columns // GROUP))
        return {WEIGHT: ("U32", (*outer, columns * self.bits // WORD_BITS)), SCALES: groups, BIASES: groups}

    def settings(self, kept: list[str]) -> dict[str, Any]:
        """Return what ``config.json`` says about the encoded weights: not which, since mlx-lm goes by the tensors."""
        del kept
        return {"bits": self.bits, "group_size": GROUP, "mode": "affine"}

    def describes(self, config: Mapping[str, Any]) -> bool:
        """Return whether it is the one that a ``config.json`` describes."""
        return all(config.get(key) == self.settings([]) for key in KEYS)


_BITS: dict[SchemeName, int] = {"MLX_4BIT": 4, "MLX_6BIT": 6, "MLX_8BIT": 8}
FORMATS = tuple(
    Mlx(name, f"{bits}bit", bits=bits, group=GROUP, rows=1, columns=GROUP) for name, bits in _BITS.items()
)
