"""A tensor of a GGUF file: whether it is quantized at all, its type, its size, and its place in the file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.quantization.types import TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable

ENDS = ("token_embd.weight", "output.weight")


@dataclass(frozen=True)
class Typed:
    """A tensor of a GGUF and its type.

    Args:
        name: Its name.
        shape: Its extents, the fastest-moving last.
        type: Its type.
        wanted: The type that its rows cannot hold, if it is another one.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    wanted: str = ""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Size of the encoded tensor, without padding."""
        rows = 1
        for extent in self.shape[:-1]:
            rows *= extent
        return rows * TYPES[self.type].row_bytes(self.shape[-1])


def is_quantized(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is quantized: matrices are; norms, biases and routers stay in F32."""
    dimensions = len(shape)
    for extent in shape[:-1]:  # as in ggml, extents of 1 at the slow end do not count
        if extent != 1:
            break
        dimensions -= 1
    return (
        dimensions >= 2
        and name.endswith("weight")
        and "_norm.weight" not in name
        and "ffn_gate_inp.weight" not in name
    )


def layer_of(name: str) -> int:
    """Return the layer that a tensor belongs to; -1 outside the layers."""
    match = re.match(r"blk\.(\d+)", name)
    return int(match[1]) if match else -1


def file_order(names: Iterable[str]) -> list[str]:
    """Return names in the order in which llama.cpp writes tensors: by layer, then by name."""
    return sorted(names, key=lambda name: (layer_of(name), name.encode()))
