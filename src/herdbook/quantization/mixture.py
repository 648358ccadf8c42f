"""The type of each tensor: llama.cpp's mixtures, for each method, architecture and number of experts.

A Q4_K_M file does not use Q4_K throughout: more important tensors get wider types, by the rules in llama.cpp's
``src/llama-quant.cpp`` (read and run in the version that llama-cpp-python 0.3.36 contains). The rules are restated here so
that our files equal those that ``llama-quantize`` writes. ``tests/data/quantize`` contains its results.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from herdbook.quantization.tensor import ENDS, Typed, file_order, is_quantized, layer_of
from herdbook.quantization.types import TYPES, fitting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from herdbook.quantization.methods import Method

_LOWEST = frozenset(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"))
_SMALL_2 = frozenset(("IQ2_S", "IQ2_M"))
_WITH_Q5_OUTPUT = _LOWEST | {"IQ3_XXS"}
_EIGHT_EXPERTS_Q5 = frozenset(
    (
        "Q2_K",
        "Q3_K_S",
        "Q3_K_M",
        "Q4_K_S",
        "Q4_K_M",
        "IQ3_XXS",
        "IQ3_XS",
        "IQ3_S",
        "IQ3_M",
        "IQ4_NL",
        "IQ4_XS",
    )
)
# Layers of the models that llama.cpp takes for a 70B: there, eight query heads share a value head, which is small.
_LAYERS_OF_70B = 80


@dataclass(frozen=True)
class Traits:
    """The traits of a model that the rules depend on.

    Args:
        architecture: Its name in a GGUF.
        layers: Number of layers.
        experts: Number of experts; 0 for a dense model.
        heads: Number of query heads.
        kv_heads: Number of key and value heads.
    """

    architecture: str
    layers: int
    experts: int
    heads: int
    kv_heads: int

    @property
    def shares_values(self) -> bool:
        """Whether at least four query heads share a value head."""
        return bool(self.kv_heads) and self.heads // self.kv_heads >= 4

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp takes it for a 70B."""
        if self.layers != _LAYERS_OF_70B:
            return False
        return self.architecture == "qwen2" or (self.architecture == "llama" and self.heads != self.kv_heads)


@dataclass(frozen=True)
class Choices:
    """What a recipe chooses in place of the rules, and what the rules depend on besides the model.

    Args:
        types: Types of tensors by regular expressions, of which the first that is found in a name counts.
        output: The type of the output matrix.
        embeddings: The type of the embeddings.
        matrix: Whether an importance matrix is used.
    """

    types: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    embeddings: str | None = None
    matrix: bool = False


@dataclass
class _Counts:
    """How many tensors the rules have seen."""

    values: int = 0
    down: int = 0
    gate: int = 0
    up: int = 0
    all_values: int = field(default=0)


def choose_types(
    shapes: Mapping[str, tuple[int, ...]], traits: Traits, method: Method, choices: Choices | None = None
) -> tuple[Typed, ...]:
    """Choose the type of every tensor.

    Args:
        shapes: The shape of each tensor by its name in the GGUF, the fastest-moving extent last.
        traits: The model's traits.
        method: The quantization method.
        choices: What the recipe chooses.

    Returns:
        The tensors in the order in which llama.cpp writes them.
    """
    choices = choices or Choices()
    rules = _Rules(shapes, traits, method, choices)
    return tuple(rules.typed(name, shapes[name]) for name in file_order(shapes))


def lacking_matrix(tensors: Iterable[Typed], method: Method) -> list[Typed]:
    """Return the tensors that llama.cpp refuses to encode without an importance matrix."""
    return [
        tensor
        for tensor in tensors
        if tensor.name not in ENDS
        and (TYPES[tensor.type].needs_matrix or (tensor.type == "Q2_K" and method.rules == "Q2_K_S"))
    ]


class _Rules:
    """The rules for one model and one method; they count the tensors that they have seen, so the order matters."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], traits: Traits, method: Method, choices: Choices
    ) -> None:
        self.traits, self.method, self.choices = traits, method.rules, choices
        self.base = method.base
        self.output = choices.output or method.ends
        self.embeddings = choices.embeddings or method.ends
        self.types = [(re.compile(pattern), kind) for pattern, kind in choices.types]
        self.tied = "output.weight" not in shapes
        self.count = _Counts(all_values=sum(map(_is_value, shapes)))

    def typed(self, name: str, shape: tuple[int, ...]) -> Typed:
        if not is_quantized(name, shape):
            return Typed(name, shape, "F32")
        width = shape[-1]
        wanted = self._wanted(name, shape)
        kind = fitting(wanted, width)
        return Typed(name, shape, kind, "" if kind == wanted else wanted)

    def _wanted(self, name: str, shape: tuple[int, ...]) -> str:
        if name == "token_embd.weight" and self.embeddings:
            return self.embeddings
        if name == "output.weight" and self.output:
            return self.output
        if TYPES[self.base].is_full_width:
            return self.base
        for pattern, kind in self.types:
            if pattern.search(name):
                return kind
        if name == "output.weight" or (self.tied and name == "token_embd.weight"):
            return self.output or self._of_output(shape[-1])
        if self.method == "MXFP4_MOE":
            return "MXFP4" if len(shape) > 2 and shape[0] > 1 else "Q8_0"
        if name == "token_embd.weight":
            return self._of_embeddings()
        if self.method in _LOWEST:
            return self._lowest(name)
        return self._usual(name)

    def _of_output(self, width: int) -> str:
        if self.method == "MXFP4_MOE" or not TYPES[self.base].fits(width):
            return "Q8_0"
        if self.method in _WITH_Q5_OUTPUT:
            return "Q5_K"
        return self.base if self.base == "Q8_0" else "Q6_K"

    def _of_embeddings(self) -> str:
        if self.method in {"IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"}:
            return "Q2_K"
        if self.method in {"IQ2_S", "IQ2_M", "IQ3_XXS"}:
            return "IQ3_S"
        return "Q4_K" if self.method in {"TQ1_0", "TQ2_0"} else self.base

    def _lowest(self, name: str) -> str:
        """Return the type in a method of one or two bits."""
        traits, small = self.traits, self.method in _SMALL_2
        if _is_value(name):
            self.count.values += 1
            if traits.shares_values or traits.experts >= 4:
                return "Q4_K"
            return "IQ3_S" if small else "Q2_K"
        if traits.experts == 8 and "attn_k.weight" in name:
            return "Q4_K"
        if "ffn_down" in name:
            self.count.down += 1
            first = self.count.down - 1 < traits.layers // 8
            return ("IQ3_S" if small else "Q2_K") if first else self.base
        if "attn_output.weight" in name:
            if traits.experts == 8:
                return "Q5_K"
            if self.method in {"IQ1_S", "IQ1_M"}:
                return "IQ2_XXS"
            return "IQ3_S" if small else self.base
        return self.base

    def _usual(self, name: str) -> str:
        if _is_value(name):
            kind = self._of_values()
            self.count.values += 1
            return kind
        if "attn_k.weight" in name or "attn_q.weight" in name:
            if "attn_k.weight" in name and self.traits.experts == 8:
                return "Q8_0"
            return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(self.method, self.base)
        if "attn_output.weight" in name:
            return self._of_attention_output()
        if "ffn_down" in name:
            kind = self._of_down(self._layer(name, self.count.down), self.traits.layers)
            self.count.down += 1
            return kind
        if "ffn_gate" in name:
            self.count.gate += 1
            return self._of_gate_and_up(self._layer(name, self.count.gate - 1), self.traits.layers)
        if "ffn_up" in name:
            self.count.up += 1
            return self._of_gate_and_up(self._layer(name, self.count.up - 1), self.traits.layers)
        return self.base

    def _layer(self, name: str, seen: int) -> int:
        """Return a tensor's layer: llama.cpp counts tensors in a dense model, but reads names in a mixture."""
        return layer_of(name) if self.traits.experts > 1 else seen

    def _of_values(self) -> str:
        method, index, kind = self.method, self.count.values, self.base
        many = self.traits.shares_values
        if self.traits.experts == 8:
            return "Q8_0"
        if method == "Q2_K":
            kind = "Q4_K" if many else "Q3_K"
        elif method in {"Q2_K_S", "IQ3_XS", "IQ3_S"} and many:
            kind = "Q4_K"
        elif method == "IQ3_XXS":
            kind = "Q4_K" if many else "IQ3_XXS" if self.choices.matrix else "IQ3_S"
        elif method == "IQ3_M":
            kind = "Q4_K"
        elif method == "Q3_K_M":
            kind = "Q5_K" if index < 2 else "Q4_K"
        elif method == "Q3_K_L" or (method in {"IQ4_NL", "IQ4_XS"} and many):
            kind = "Q5_K"
        elif method in {"Q4_K_M", "Q5_K_M"} and _wider(index, self.count.all_values):
            kind = "Q6_K"
        elif method == "Q4_K_S" and index < 4:
            kind = "Q5_K"
        return "Q5_K" if self.traits.is_70b and kind in {"Q3_K", "Q4_K"} else kind

    def _of_attention_output(self) -> str:
        if self.traits.experts == 8:
            return "Q5_K" if self.method in _EIGHT_EXPERTS_Q5 else self.base
        others = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
        return others.get(self.method, self.base)

    def _of_down(self, layer: int, layers: int) -> str:
        method, first, matrix = self.method, layer < layers // 8, self.choices.matrix
        kind = self.base
        if method == "Q2_K":
            kind = "Q3_K"
        elif method == "Q2_K_S":
            kind = "Q4_K" if first else kind
        elif method == "IQ3_XXS" and not matrix:
            kind = "Q4_K" if first else "Q3_K"
        elif method == "Q3_K_M":
            kind = "Q5_K" if layer < layers // 16 else "Q4_K"
        elif method == "IQ3_M":
            kind = "Q4_K" if first or (self.traits.experts == 8 and _wider(layer, layers)) else kind
        elif method == "Q3_K_L":
            kind = "Q5_K"
        elif method in {"Q4_K_M", "Q5_K_M"}:
            kind = "Q6_K" if _wider(layer, layers) else kind
        elif method == "Q4_K_S" or (method in {"IQ4_NL", "IQ4_XS"} and not matrix):
            kind = "Q5_K" if first else kind
        elif method in {"Q4_0", "Q5_0"} and matrix and first:
            kind = {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}[method]
        return kind

    def _of_gate_and_up(self, layer: int, layers: int) -> str:
        middle = layers // 8 <= layer < 7 * layers // 8
        return "IQ3_XXS" if self.method == "IQ3_XS" and middle else self.base


def _is_value(name: str) -> bool:
    """Return whether a tensor has the rules of a value projection: alone, or joined with others."""
    return any(each in name for each in ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"))


def _wider(layer: int, layers: int) -> bool:
    """Return whether llama.cpp uses more bits for a layer: the first and last eighth, and every third between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
