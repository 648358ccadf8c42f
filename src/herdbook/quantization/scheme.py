"""What every format of encoded weights has, as data: how its tensors are stored, and what ``config.json`` says about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

SchemeName = Literal["FP8_DYNAMIC", "W4A16", "MLX_4BIT", "MLX_6BIT", "MLX_8BIT"]
Library = Literal["compressed-tensors", "mlx"]
Stored = dict[str, tuple[str, tuple[int, ...]]]
WORD_BITS = 32  # of the integers that narrow weights are packed in


@dataclass(frozen=True)
class Scheme:
    """A way to encode matrices.

    Attributes:
        library: What defines it. The modules that know more than data are chosen by it.
        header: The entry ``format`` in the headers of its weights files.
        keys: The keys of ``config.json`` under which it is described, each with the same content.
        scales: The last part of the name of a matrix's scales; every encoded matrix has them, and no other tensor.
        readers: Who loads it, in messages.

    Args:
        name: Its name in recipes.
        ending: The end of a release's name.
        bits: The width of an encoded weight.
        group: How many weights of a row share a scale; None for a whole row.
        rows: The rows of a matrix have to be a multiple of it.
        columns: Its columns have to be a multiple of it.
    """

    library: ClassVar[Library]
    header: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    scales: ClassVar[str]
    readers: ClassVar[str]

    name: SchemeName
    ending: str
    bits: int
    group: int | None
    rows: int
    columns: int

    @property
    def numbers(self) -> str:
        """The last part of the name of a matrix's encoded numbers."""
        raise NotImplementedError

    def columns_in(self, elements: int) -> int:
        """Return how many encoded weights the elements of a row of the numbers' tensor hold."""
        raise NotImplementedError

    @property
    def runs_in_float32(self) -> bool:
        """Whether a runtime multiplies encoded numbers by their scales in float32, and not in the dtype of the scales."""
        raise NotImplementedError

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of a repository that has it."""
        raise NotImplementedError

    @property
    def demand(self) -> str:
        """What the shape of a matrix must be, in a message."""
        raise NotImplementedError

    def stored(self, dtype: str, shape: tuple[int, ...]) -> Stored:
        """Return the tensors that a matrix is stored as: dtype and shape, by the last part of the name.

        Args:
            dtype: safetensors' code of the matrix's dtype, which the scales have as well.
            shape: Its shape.
        """
        raise NotImplementedError

    def settings(self, kept: list[str]) -> dict[str, Any]:
        """Return what ``config.json`` says about the encoded weights.

        Args:
            kept: The names of the linear layers that keep their width.
        """
        raise NotImplementedError

    def describes(self, config: Mapping[str, Any]) -> bool:
        """Return whether it is the one that a ``config.json`` describes."""
        raise NotImplementedError
