"""Planning the quantized files of the released model: the type of each of their tensors, and the header that they share."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.gguf_forms import expert_count
from herdbook.architectures.gguf_tensors import gguf_architecture, gguf_shapes
from herdbook.errors import RecipeError
from herdbook.humanize import plural
from herdbook.key import SHORT, digest
from herdbook.plan.code import TOKENIZERS, Code
from herdbook.quantization.methods import METHODS
from herdbook.quantization.mixture import Choices, Traits, choose_types, is_quantized, lacking_matrix
from herdbook.recipe.quantize import describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan.model import Node
    from herdbook.quantization.mixture import Typed
    from herdbook.recipe import Recipe
    from herdbook.recipe.quantize import QuantizedFile

# llama.cpp's converter runs in a process of its own, with our torch and transformers; `convert` pins its version
CONVERT_CODE = Code(
    "convert",
    ("herdbook.steps.quantize.step",),
    without=("herdbook.steps.quantize.quantize",),
    packages=("torch", "transformers", *TOKENIZERS),
)
QUANTIZE_CODE = Code(
    "quantize", ("herdbook.steps.quantize.step",), without=("herdbook.steps.quantize.convert",)
)


@dataclass(frozen=True)
class Conversion:
    """The header of the released model's GGUF files, without tensors: hyperparameters and vocabulary.

    Args:
        name: The release's name.
        key: Digest that identifies it.
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
        method: The usual name of its method, such as ``Q4_K_M``, or the recipe's name for a file with types of its own.
        key: Digest that identifies it.
        file: Its name in the release.
        file_type: llama.cpp's number of the method, in the file's header.
        use: One sentence of advice.
        tensors: Its tensors and their types, in the order of the file.
        chosen: The recipe's choices in place of the method's rules, as its record lists them.
    """

    method: str
    key: str
    file: str
    file_type: int
    use: str
    tensors: tuple[Typed, ...]
    chosen: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Name of its file below ``results/quantized``, without suffix."""
        return f"{self.file.removesuffix('.gguf')}-{self.key[:SHORT]}"

    @property
    def size_bytes(self) -> int:
        """Size of its weights."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def types(self) -> dict[str, str]:
        """The type of each tensor by name, in the order of the file."""
        return {tensor.name: tensor.type for tensor in self.tensors}

    @property
    def about(self) -> dict[str, Any]:
        """What its record states about how it was made, as JSON."""
        replaced = {tensor.name: tensor.wanted for tensor in self.tensors if tensor.wanted}
        return {
            "operation": "quantize",
            "key": self.key,
            "method": self.method,
            "name": self.file,
            **({"chosen": self.chosen} if self.chosen else {}),
            **({"replaced": replaced} if replaced else {}),
        }


def plan_conversion(recipe: Recipe, released: Node, metadata: Mapping[str, str]) -> Conversion:
    """Return the header of the released model's GGUF files, with the metadata that is written into it."""
    content = {
        "operation": "convert",
        "model": released.key,
        "metadata": dict(metadata),
        "code": CONVERT_CODE.describe().json,
    }
    return Conversion(recipe.release.name, digest(content))


def plan_quantized(recipe: Recipe, released: Node, conversion: Conversion) -> tuple[Quantized, ...]:
    """Return the quantized files of a recipe, in its order."""
    files = recipe.quantize.files if recipe.quantize else ()
    code = QUANTIZE_CODE.describe().json
    return tuple(
        _planned(file, tensors, recipe.release.name, conversion, code)
        for file, tensors in zip(files, chosen_types(recipe, released), strict=True)
    )


def _planned(
    file: QuantizedFile, tensors: tuple[Typed, ...], name: str, conversion: Conversion, code: dict[str, str]
) -> Quantized:
    method = METHODS[file.method]
    content = {
        "operation": "quantize",
        "header": conversion.key,
        "file_type": method.file_type,
        "types": [[tensor.name, tensor.type] for tensor in tensors],
        "code": code,
    }
    key = digest(content)
    use = f"{file.method} with types of its own; its record lists them." if file.chooses else method.use
    chosen = {"method": file.method, **describe(file)} if file.label != file.method else {}
    return Quantized(file.label, key, f"{name}.{file.label}.gguf", method.file_type, use, tensors, chosen)


def chosen_types(recipe: Recipe, released: Node) -> tuple[tuple[Typed, ...], ...]:
    """Return, for each quantized file of a recipe, its tensors with their types."""
    if recipe.quantize is None:
        return ()
    shapes = gguf_shapes(
        released.config, {name: t.shape for name, (_, t) in released.tensors.items()}, released.name
    )
    traits = traits_of(released.config)
    return tuple(
        choose_types(
            shapes,
            traits,
            METHODS[file.method],
            Choices(tuple(file.types.items()), file.output, file.embeddings),
        )
        for file in recipe.quantize.files
    )


def traits_of(config: Mapping[str, Any]) -> Traits:
    """Return the traits that llama.cpp's mixtures depend on."""
    heads = config["num_attention_heads"]
    return Traits(
        gguf_architecture(config),
        config["num_hidden_layers"],
        expert_count(config),
        heads,
        config.get("num_key_value_heads") or heads,
    )


def check_types(recipe: Recipe, released: Node) -> None:
    """Check that each quantized file can be made as the recipe requests.

    Raises:
        RecipeError: If a file needs an importance matrix, or a pattern fits no tensor.
    """
    problems = []
    files = recipe.quantize.files if recipe.quantize else ()
    for index, (file, tensors) in enumerate(zip(files, chosen_types(recipe, released), strict=True)):
        where = f"quantize.methods.{index}"
        if lacking := lacking_matrix(tensors, METHODS[file.method]):
            kinds = ", ".join(sorted({tensor.type for tensor in lacking}))
            problems.append(
                f"{where}: {file.label} needs an importance matrix, without which {kinds} would be useless "
                f"({plural(len(lacking), 'tensor')}, such as {lacking[0].name}); choose a wider method"
            )
        problems += [f"{where}.types: {problem}" for problem in _unused(file, tensors)]
    if problems:
        raise RecipeError(problems)


def replaced_types(recipe: Recipe, released: Node) -> list[str]:
    """Return which types were replaced in which files, since rows do not fit, one line for each file."""
    lines = []
    files = recipe.quantize.files if recipe.quantize else ()
    for file, tensors in zip(files, chosen_types(recipe, released), strict=True):
        replaced = Counter((each.wanted, each.type, each.shape[-1]) for each in tensors if each.wanted)
        listed = [
            f"{kind} in place of {wanted} for {plural(count, 'tensor')} with rows of {width}"
            for (wanted, kind, width), count in sorted(replaced.items())
        ]
        if listed:
            lines.append(f"quantize: {file.label} has, as llama.cpp would make it, {', '.join(listed)}")
    return lines


def _unused(file: QuantizedFile, tensors: tuple[Typed, ...]) -> Iterator[str]:
    """Yield the patterns that decide the type of no tensor."""
    ends = {
        name
        for name, kind in (("output.weight", file.output), ("token_embd.weight", file.embeddings))
        if kind
    }
    left = [each.name for each in tensors if is_quantized(each.name, each.shape) and each.name not in ends]
    for pattern in file.types:
        found = [name for name in left if re.search(pattern, name)]
        if not found:
            yield f"no tensor that is quantized fits {pattern!r}; names are those of llama.cpp, such as blk.0.ffn_down.weight"
        left = [name for name in left if name not in found]
