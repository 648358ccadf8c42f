"""Planning the quantized files of the released model, and the full-width file that they are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.key import SHORT, Code, digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan.model import Node
    from herdbook.recipe import Recipe

CONVERT_CODE = Code(modules=("herdbook.steps.quantize.convert", "herdbook.steps.quantize.folder"))
QUANTIZE_CODE = Code(
    modules=tuple(
        f"herdbook.steps.quantize.{module}"
        for module in (
            "derive",
            "encode",
            "folder",
            "gguf_file",
            "layout",
            "methods",
            "mixture",
            "quantize",
            "step",
        )
    ),
    packages=("gguf", "libgguf", "numpy"),
)


@dataclass(frozen=True)
class Conversion:
    """The making of the full-width GGUF of the released model, from which quantized files are made.

    Args:
        name: The release's name.
        key: Digest that says what it is.
    """

    name: str
    key: str

    @property
    def id(self) -> str:
        """Name of its file below ``results/quantized``, without suffixes."""
        return f"{self.name}-{self.key[:SHORT]}"


@dataclass(frozen=True)
class Quantized:
    """One quantized file of the released model.

    Args:
        method: How it is quantized, by llama.cpp's name, such as ``Q4_K_M``.
        key: Digest that says what it is.
        file: Its name in the release.
    """

    method: str
    key: str
    file: str

    @property
    def id(self) -> str:
        """Name of its file below ``results/quantized``, without suffix."""
        return f"{self.file.removesuffix('.gguf')}-{self.key[:SHORT]}"


def plan_conversion(recipe: Recipe, released: Node, metadata: Mapping[str, str]) -> Conversion:
    """Return the full-width GGUF of the released model, with what it says about itself."""
    content = {
        "operation": "convert",
        "model": released.key,
        "metadata": dict(metadata),
        "code": CONVERT_CODE.describe(),
    }
    return Conversion(recipe.release.name, digest(content))


def plan_quantized(recipe: Recipe, conversion: Conversion) -> tuple[Quantized, ...]:
    """Return the quantized files, in the recipe's order."""
    if recipe.quantize is None:
        return ()
    code = QUANTIZE_CODE.describe()
    return tuple(
        Quantized(
            method,
            digest({"operation": "quantize", "full": conversion.key, "method": method, "code": code}),
            f"{recipe.release.name}.{method}.gguf",
        )
        for method in recipe.quantize.methods
    )
