"""Planning the quantized files of the released model, and the full-width file that they are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.key import SHORT, Code, digest

if TYPE_CHECKING:
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
class Converted:
    """The full-width GGUF of the released model, which quantized files are made from.

    Args:
        name: The release's name.
        key: Digest that says what it is.
        metadata: What it and the files made from it say about themselves.
    """

    name: str
    key: str
    metadata: tuple[tuple[str, str], ...]

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
        full: The full-width file that it is made from.
    """

    method: str
    key: str
    file: str
    full: Converted

    @property
    def id(self) -> str:
        """Name of its file below ``results/quantized``, without suffix."""
        return f"{self.file.removesuffix('.gguf')}-{self.key[:SHORT]}"


def plan_conversion(recipe: Recipe, released: Node) -> Converted | None:
    """Return the full-width GGUF of the released model; None if nothing is quantized."""
    if recipe.quantize is None:
        return None
    about = {"general.name": recipe.release.name, "general.license": recipe.release.license}
    content = {
        "operation": "convert",
        "model": released.key,
        "metadata": about,
        "code": CONVERT_CODE.describe(),
    }
    return Converted(recipe.release.name, digest(content), tuple(about.items()))


def plan_quantized(recipe: Recipe, converted: Converted | None) -> tuple[Quantized, ...]:
    """Return the quantized files, in the recipe's order."""
    if recipe.quantize is None or converted is None:
        return ()
    code = QUANTIZE_CODE.describe()
    return tuple(
        Quantized(
            method,
            digest({"operation": "quantize", "full": converted.key, "method": method, "code": code}),
            f"{recipe.release.name}.{method}.gguf",
            converted,
        )
        for method in recipe.quantize.methods
    )
