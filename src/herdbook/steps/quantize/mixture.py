"""The type of each tensor: the mixtures of llama.cpp, for the llama architecture and without an importance matrix.

A Q4_K_M file does not use Q4_K throughout: more important tensors get wider types, by the rules in llama.cpp's
``src/llama-quant.cpp`` (read and run in the version that llama-cpp-python 0.3.36 contains). The rules are restated here so
that our files equal those that ``llama-quantize`` writes. ``tests/data/quantize/peer.json`` contains its results.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.steps.quantize.methods import Method
    from herdbook.weights.gguf_file import TensorInfo

Kind = GGMLQuantizationType

# K-types need rows whose length is a multiple of 256; llama.cpp's substitutes for other rows.
NARROW = {Kind.Q3_K: Kind.Q4_0, Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Kind.Q8_0}

# The 70B model, in which eight query heads share a value head: llama.cpp widens its attn_v, since that is small.
LAYERS_OF_70B = 80


@dataclass(frozen=True)
class Traits:
    """The traits of a model that the rules depend on.

    Args:
        layers: Number of layers.
        experts: Number of experts; 0 for a dense model.
        heads: Number of query heads.
        kv_heads: Number of key and value heads.
    """

    layers: int
    experts: int
    heads: int
    kv_heads: int


def layer_of(name: str) -> int:
    """Return the layer that a tensor belongs to; -1 outside the layers."""
    match = re.match(r"blk\.(\d+)", name)
    return int(match[1]) if match else -1


def file_order(names: Iterable[str]) -> list[str]:
    """Return names in the order in which llama.cpp writes tensors: by layer, then by name."""
    return sorted(names, key=lambda name: (layer_of(name), name.encode()))


def choose_types(tensors: dict[str, TensorInfo], traits: Traits, method: Method) -> dict[str, Any]:
    """Choose the type of every tensor.

    Args:
        tensors: The full-width file's tensors by name.
        traits: The model's traits.
        method: The quantization method.

    Returns:
        Types by name, in the order in which llama.cpp writes the tensors.
    """
    names = file_order(tensors)
    value_count = sum("attn_v.weight" in name for name in names)
    tied = "output.weight" not in tensors
    value_index = down_index = 0
    chosen: dict[str, Any] = {}
    for name in names:
        tensor = tensors[name]
        kind = tensor.type
        if _is_quantized(tensor):
            kind = Kind[method.base]
            if name == "output.weight" or (tied and name == "token_embd.weight"):
                kind = _output_type(kind, tensor.width)
            elif "attn_v.weight" in name:
                kind = _value_type(kind, method.name, value_index, value_count, traits)
                value_index += 1
            elif "attn_k.weight" in name and traits.experts == 8:
                kind = Kind.Q8_0
            elif "attn_output.weight" in name:
                kind = _attention_output_type(kind, method.name, traits)
            elif "ffn_down" in name:
                # llama.cpp counts layers in a dense model, but reads them from names in a mixture
                layer = layer_of(name) if traits.experts > 1 else down_index
                kind = _down_type(kind, method.name, layer, traits.layers)
                down_index += 1
            kind = _fitting(kind, tensor.width)
        chosen[name] = kind
    return chosen


def _is_quantized(tensor: TensorInfo) -> bool:
    """Return whether a tensor is quantized: matrices are; norms, biases and routers are copied."""
    dimensions = len(tensor.shape)
    for extent in tensor.shape[:-1]:  # as in ggml, extents of 1 at the slow end do not count
        if extent != 1:
            break
        dimensions -= 1
    name = tensor.name
    return (
        dimensions >= 2
        and name.endswith("weight")
        and not name.endswith("_norm.weight")
        and "ffn_gate_inp.weight" not in name
    )


def _wider(layer: int, layers: int) -> bool:
    """Return whether llama.cpp uses more bits for a layer: the first and last eighth, and every third between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _output_type(base: Any, width: int) -> Any:
    if width % GGML_QUANT_SIZES[base][0]:
        return Kind.Q8_0
    return base if base == Kind.Q8_0 else Kind.Q6_K


def _value_type(base: Any, method: str, index: int, count: int, traits: Traits) -> Any:
    if traits.experts == 8:
        return Kind.Q8_0
    kind = base
    if method == "Q3_K_M":
        kind = Kind.Q5_K if index < 2 else Kind.Q4_K
    elif method in {"Q4_K_M", "Q5_K_M"} and _wider(index, count):
        kind = Kind.Q6_K
    elif method == "Q4_K_S" and index < 4:
        kind = Kind.Q5_K
    if traits.layers == LAYERS_OF_70B and traits.heads != traits.kv_heads and kind in {Kind.Q3_K, Kind.Q4_K}:
        kind = Kind.Q5_K
    return kind


def _attention_output_type(base: Any, method: str, traits: Traits) -> Any:
    if traits.experts == 8:
        return Kind.Q5_K if method in {"Q3_K_M", "Q4_K_S", "Q4_K_M"} else base
    return Kind.Q4_K if method == "Q3_K_M" else base


def _down_type(base: Any, method: str, layer: int, layers: int) -> Any:
    if method == "Q3_K_M":
        return Kind.Q5_K if layer < layers // 16 else Kind.Q4_K
    if method in {"Q4_K_M", "Q5_K_M"} and _wider(layer, layers):
        return Kind.Q6_K
    if method == "Q4_K_S" and layer < layers // 8:
        return Kind.Q5_K
    return base


def _fitting(kind: Any, width: int) -> Any:
    """Return ``kind``, or llama.cpp's substitute if a row is not a whole number of blocks."""
    if width % GGML_QUANT_SIZES[kind][0]:
        kind = NARROW.get(kind, kind)
    return Kind.F16 if width % GGML_QUANT_SIZES[kind][0] else kind
