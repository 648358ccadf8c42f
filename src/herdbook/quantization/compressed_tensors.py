"""The formats for GPU servers: schemes of compressed-tensors whose bytes follow from the weights alone.

Source: compressed-tensors 0.19, ``quant_scheme.py`` for the settings, ``compressors`` for names and shapes of tensors. Every matrix of
a linear layer is encoded; embeddings, head, norms, biases and routers keep their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from herdbook.quantization.scheme import WORD_BITS, Library, Scheme, Stored

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "quantization_config"  # in ``config.json``
VERSION = "0.19.0"  # of compressed-tensors, whose form of settings this is
WEIGHT, SCALE = "weight", "weight_scale"
PACKED, SHAPE = "weight_packed", "weight_shape"


@dataclass(frozen=True)
class CompressedTensors(Scheme):
    """A scheme of compressed-tensors.

    Args:
        format: The name of the tensors' layout in compressed-tensors.
        activations: Whether a server encodes what comes into a matrix as well, each token with a scale of its own.
    """

    library: ClassVar[Library] = "compressed-tensors"
    header: ClassVar[str] = "pt"
    keys: ClassVar[tuple[str, ...]] = (KEY,)
    scales: ClassVar[str] = SCALE
    readers: ClassVar[str] = "servers"

    format: str
    activations: bool

    @property
    def is_packed(self) -> bool:
        """Whether several weights are in one integer."""
        return self.bits < 8

    @property
    def numbers(self) -> str:
        """The last part of the name of a matrix's encoded numbers."""
        return PACKED if self.is_packed else WEIGHT

    def columns_in(self, elements: int) -> int:
        """Return how many encoded weights the elements of a row of the numbers' tensor hold."""
        return elements * WORD_BITS // self.bits if self.is_packed else elements

    @property
    def runs_in_float32(self) -> bool:
        """Whether a runtime multiplies in float32: sums of products of encoded numbers are, and not packed weights."""
        return self.activations

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of a repository that has it."""
        return (self.library, self.ending.lower())

    @property
    def demand(self) -> str:
        """What the shape of a matrix must be, in a message."""
        return f"GPUs compute with multiples of {self.rows} rows and {self.columns} weights in this format"

    def stored(self, dtype: str, shape: tuple[int, ...]) -> Stored:
        """Return the tensors that a matrix is stored as; see ``Scheme``."""
        rows, columns = shape
        scales = (rows, columns // self.group if self.group else 1)
        if self.is_packed:
            packed = columns * self.bits // WORD_BITS
            return {
                PACKED: ("I32", (rows, packed)),
                SCALE: (dtype, scales),
                SHAPE: ("I64", (2,)),
            }
        return {WEIGHT: ("F8_E4M3", shape), SCALE: (dtype, scales)}

    def settings(self, kept: list[str]) -> dict[str, Any]:
        """Return what ``config.json`` says about the encoded weights; see ``Scheme``."""
        shared: dict[str, Any] = {
            "actorder": None,
            "block_structure": None,
            "num_bits": self.bits,
            "observer_kwargs": {},
            "scale_dtype": None,
            "symmetric": True,
            "type": "int" if self.is_packed else "float",
            "zp_dtype": None,
        }
        weights = {
            **shared,
            "dynamic": False,
            "group_size": self.group,
            "observer": "memoryless_minmax",
            "strategy": "group" if self.group else "channel",
        }
        inputs = {**shared, "dynamic": True, "group_size": None, "observer": None, "strategy": "token"}
        group = {
            "format": self.format,
            "input_activations": inputs if self.activations else None,
            "output_activations": None,
            "targets": ["Linear"],
            "weights": weights,
        }
        return {
            "config_groups": {"group_0": group},
            "format": self.format,
            "global_compression_ratio": None,
            "ignore": kept,
            "kv_cache_scheme": None,
            "quant_method": self.library,
            "quantization_status": "compressed",
            "sparsity_config": {},
            "transform_config": {},
            "version": VERSION,
        }

    def describes(self, config: Mapping[str, Any]) -> bool:
        """Return whether it is the one that a ``config.json`` describes."""
        settings = config.get(KEY)
        kept = settings.get("ignore") if isinstance(settings, dict) else None
        return isinstance(kept, list) and settings == self.settings(kept)


FORMATS = (
    # the matrix products of GPUs in FP8 read 16 bytes at a time
    CompressedTensors(
        "FP8_DYNAMIC",
        "FP8",
        bits=8,
        group=None,
        rows=16,
        columns=16,
        format="float-quantized",
        activations=True,
    ),
    CompressedTensors(
        "W4A16",
        "W4A16",
        bits=4,
        group=128,
        rows=8,
        columns=128,
        format="pack-quantized",
        activations=False,
    ),
)
