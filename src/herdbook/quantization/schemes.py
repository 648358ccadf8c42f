"""The formats for GPU servers, as data: schemes of compressed-tensors whose bytes follow from the weights alone.

Source: compressed-tensors 0.19, ``quant_scheme.py`` for the settings, ``compressors`` for names and shapes of tensors. Every matrix of
a linear layer is encoded; embeddings, head, norms, biases and routers keep their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

SchemeName = Literal["FP8_DYNAMIC", "W4A16"]
KEY = "quantization_config"  # in ``config.json``
METHOD = "compressed-tensors"
VERSION = "0.19.0"  # of compressed-tensors, whose form of settings this is
WEIGHT, SCALE = "weight", "weight_scale"
PACKED, SHAPE = "weight_packed", "weight_shape"
PACKED_BITS = 32  # of the integers that narrow weights are packed in


@dataclass(frozen=True)
class Scheme:
    """A way to encode the matrices of linear layers.

    Args:
        name: Its name in compressed-tensors.
        ending: The end of a release's name.
        format: The name of the tensors' layout in compressed-tensors.
        bits: The width of an encoded weight.
        group: How many weights of a row share a scale; None for a whole row.
        rows: The rows of a matrix have to be a multiple of it.
        columns: Its columns have to be a multiple of it.
        activations: Whether a server encodes what comes into a matrix as well, each token with a scale of its own.
        use: One sentence of advice.
    """

    name: SchemeName
    ending: str
    format: str
    bits: int
    group: int | None
    rows: int
    columns: int
    activations: bool
    use: str

    @property
    def is_packed(self) -> bool:
        """Whether several weights are in one integer."""
        return self.bits < 8

    def stored(self, dtype: str, shape: tuple[int, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the tensors that a matrix is stored as: dtype and shape, by the last part of the name.

        Args:
            dtype: safetensors' code of the matrix's dtype, which the scales have as well.
            shape: Its shape.
        """
        rows, columns = shape
        scales = (rows, columns // self.group if self.group else 1)
        if self.is_packed:
            packed = columns * self.bits // PACKED_BITS
            return {
                PACKED: ("I32", (rows, packed)),
                SCALE: (dtype, scales),
                SHAPE: ("I64", (2,)),
            }
        return {WEIGHT: ("F8_E4M3", shape), SCALE: (dtype, scales)}

    def settings(self, kept: list[str]) -> dict[str, Any]:
        """Return the section of ``config.json`` that describes the encoded weights.

        Args:
            kept: The names of the linear layers that keep their width.
        """
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
            "quant_method": METHOD,
            "quantization_status": "compressed",
            "sparsity_config": {},
            "transform_config": {},
            "version": VERSION,
        }


SCHEMES: dict[SchemeName, Scheme] = {
    scheme.name: scheme
    for scheme in (
        # the matrix products of GPUs in FP8 read 16 bytes at a time
        Scheme(
            "FP8_DYNAMIC",
            "FP8",
            "float-quantized",
            bits=8,
            group=None,
            rows=16,
            columns=16,
            activations=True,
            use="Half the size of bfloat16, for GPUs that compute in FP8.",
        ),
        Scheme(
            "W4A16",
            "W4A16",
            "pack-quantized",
            bits=4,
            group=128,
            rows=8,
            columns=128,
            activations=False,
            use="About a quarter of the size of bfloat16; loses more than FP8_DYNAMIC.",
        ),
    )
}


def scheme_of(config: Mapping[str, Any]) -> Scheme | None:
    """Return the scheme that a ``config.json`` describes; None if there is none, or another one."""
    settings = config.get(KEY)
    if not isinstance(settings, dict):
        return None
    return next(
        (
            scheme
            for scheme in SCHEMES.values()
            if isinstance(settings.get("ignore"), list) and settings == scheme.settings(settings["ignore"])
        ),
        None,
    )
