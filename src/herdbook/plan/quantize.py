"""Planning the quantized files of the released model, and the full-width file that they are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.key import SHORT, digest
from herdbook.plan.code import TOKENIZERS, Code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan.model import Node
    from herdbook.recipe import Recipe

# llama.cpp's converter runs in a process of its own, with our torch and transformers; `convert` pins its version
CONVERT_CODE = Code(
    "convert",
    ("herdbook.steps.quantize.step",),
    without=("herdbook.steps.quantize.derive", "herdbook.steps.quantize.quantize"),
    packages=("torch", "transformers", *TOKENIZERS),
)
QUANTIZE_CODE = Code(
    "quantize", ("herdbook.steps.quantize.step",), without=("herdbook.steps.quantize.convert",)
)

# Approximate bits per weight of each method.
BITS = {"Q8_0": 8.5, "Q6_K": 6.57, "Q5_K_M": 5.7, "Q4_K_M": 4.9, "Q4_K_S": 4.6}


@dataclass(frozen=True)
class Conversion:
    """The conversion of the released model to a full-width GGUF, from which quantized files are made.

    Args:
        name: The release's name.
        key: Digest that identifies it.
        size_bytes: Size of its weights.
    """

    name: str
    key: str
    size_bytes: int

    @property
    def id(self) -> str:
        """Name of its file below ``results/quantized``, without suffixes."""
        return f"{self.name}-{self.key[:SHORT]}"


@dataclass(frozen=True)
class Quantized:
    """One quantized file of the released model.

    Args:
        method: llama.cpp's name of the method, such as ``Q4_K_M``.
        key: Digest that identifies it.
        file: Its name in the release.
        size_bytes: Size of its weights, estimated.
    """

    method: str
    key: str
    file: str
    size_bytes: int

    @property
    def id(self) -> str:
        """Name of its file below ``results/quantized``, without suffix."""
        return f"{self.file.removesuffix('.gguf')}-{self.key[:SHORT]}"

    @property
    def about(self) -> dict[str, str]:
        """What its record says of how it was made, as JSON."""
        return {"operation": "quantize", "key": self.key, "method": self.method, "name": self.file}


def plan_conversion(recipe: Recipe, released: Node, metadata: Mapping[str, str]) -> Conversion:
    """Return the full-width GGUF of the released model, with the metadata that is written into it."""
    content = {
        "operation": "convert",
        "model": released.key,
        "metadata": dict(metadata),
        "code": CONVERT_CODE.describe().json,
    }
    return Conversion(recipe.release.name, digest(content), released.size_bytes)


def plan_quantized(recipe: Recipe, released: Node, conversion: Conversion) -> tuple[Quantized, ...]:
    """Return the quantized files of a recipe, in its order."""
    methods = recipe.quantize.methods if recipe.quantize else ()
    code = QUANTIZE_CODE.describe().json
    return tuple(
        Quantized(
            method,
            digest({"operation": "quantize", "full": conversion.key, "method": method, "code": code}),
            f"{recipe.release.name}.{method}.gguf",
            int(released.parameters * BITS[method] / 8),
        )
        for method in methods
    )
