"""Planning the quantized files of the released model: the type of each of their tensors, and the header that they share."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from herdbook.architectures.conversion import long_from
from herdbook.architectures.gguf_forms import expert_count
from herdbook.architectures.gguf_tensors import gguf_architecture, gguf_shapes
from herdbook.errors import RecipeError
from herdbook.humanize import plural
from herdbook.key import SHORT, digest
from herdbook.plan.code import TOKENIZERS, Code
from herdbook.quantization.budget import bits_within, smallest
from herdbook.quantization.methods import METHODS
from herdbook.quantization.mixture import Choices, Traits, choose_types, lacking_matrix
from herdbook.quantization.split import part_names, runs
from herdbook.quantization.tensor import ENDS, is_quantized
from herdbook.quantization.types import TYPES
from herdbook.recipe.quantize import BudgetedFile, describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.jsonio import JsonObject
    from herdbook.plan.imatrix import Imatrix
    from herdbook.plan.model import Node
    from herdbook.quantization.tensor import Typed
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
        runs: The names of the tensors of each of its parts in the release.
        budget: The most bits per weight, if types are chosen by measured error when the file is made; ``tensors`` have those
            of the method of about so many bits then.
        imatrix: The importance matrix that its encoders use; None if there is none, or none of its types uses one.
        note: What who runs it must know; empty without anything.
    """

    method: str
    key: str
    file: str
    file_type: int
    use: str
    tensors: tuple[Typed, ...]
    chosen: Mapping[str, Any]
    runs: tuple[tuple[str, ...], ...] = ()
    imatrix: Imatrix | None = None
    budget: float | None = None
    note: str = ""

    @property
    def id(self) -> str:
        """Name of its file below ``results/quantized``, without suffix."""
        return f"{self.file.removesuffix('.gguf')}-{self.key[:SHORT]}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts in the release; itself if it is in one."""
        return part_names(self.file, len(self.runs)) if self.is_split else (self.file,)

    @property
    def is_split(self) -> bool:
        """Whether it is in several parts in the release."""
        return len(self.runs) > 1

    @property
    def pattern(self) -> str:
        """What finds all its files, and no other."""
        return (
            f"{self.file.removesuffix('.gguf')}-*-of-{len(self.runs):05d}.gguf"
            if self.is_split
            else self.file
        )

    @property
    def size_bytes(self) -> int:
        """Size of its weights, or of the budget for them."""
        if self.budget:
            return int(self.budget * sum(tensor.parameters for tensor in self.tensors) / 8)
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def types(self) -> dict[str, str]:
        """The type of each tensor by name, in the order of the file."""
        return {tensor.name: tensor.type for tensor in self.tensors}

    @property
    def about(self) -> JsonObject:
        """What its record states about how it was made, as JSON."""
        replaced = (
            {} if self.budget else {tensor.name: tensor.wanted for tensor in self.tensors if tensor.wanted}
        )
        return {
            "operation": "quantize",
            "key": self.key,
            "method": self.method,
            "name": self.file,
            **({"chosen": self.chosen} if self.chosen else {}),
            **({"replaced": replaced} if replaced else {}),
            **({"imatrix": self.imatrix.file} if self.imatrix else {}),
            **({"note": self.note} if self.note else {}),
        }


def note_of(config: Mapping[str, Any]) -> str:
    """Return what who runs a GGUF of a model must know; empty without anything."""
    length = long_from(config)
    if length is None:
        return ""
    return (
        f"With a context of more than {length:,} tokens (which it rounds up to a multiple of 256), llama.cpp uses the long factors of "
        "the rotary embeddings (LongRoPE) for every text, transformers only for texts that are longer. With a context of at most "
        f"{length:,} tokens, both compute the same"
    )


def with_types(item: Quantized, types: Mapping[str, str]) -> Quantized:
    """Return a file whose types were chosen when it was made, with these.

    Args:
        item: The file.
        types: The type of each of its tensors.

    Raises:
        ValueError: If they are not types of its tensors, or over its budget.
    """
    if not item.budget:
        return item
    if types.keys() != item.types.keys() or any(kind not in TYPES for kind in types.values()):
        raise ValueError(f"{item.file}: its types are not those of its tensors")
    tensors = tuple(replace(tensor, type=types[tensor.name], wanted="") for tensor in item.tensors)
    size = sum(tensor.size_bytes for tensor in tensors)
    if 8 * size > bits_within(item.budget, tensors):
        raise ValueError(f"{item.file}: has more than {item.budget:g} bits per weight")
    return replace(item, tensors=tensors, budget=None)


def plan_conversion(recipe: Recipe, released: Node, metadata: Mapping[str, str]) -> Conversion:
    """Return the header of the released model's GGUF files, with the metadata that is written into it."""
    content = {
        "operation": "convert",
        "model": released.key,
        "metadata": dict(metadata),
        "code": CONVERT_CODE.describe().json,
    }
    return Conversion(recipe.release.name, digest(content))


def plan_quantized(
    recipe: Recipe, released: Node, conversion: Conversion, imatrix: Imatrix | None
) -> tuple[Quantized, ...]:
    """Return the quantized files of a recipe, in its order."""
    files = recipe.quantize.files if recipe.quantize else ()
    code, note = QUANTIZE_CODE.describe().json, note_of(released.config)
    return tuple(
        replace(_planned(file, tensors, recipe, conversion, code, imatrix), note=note)
        for file, tensors in zip(files, chosen_types(recipe, released), strict=True)
    )


def _planned(
    file: QuantizedFile | BudgetedFile,
    tensors: tuple[Typed, ...],
    recipe: Recipe,
    conversion: Conversion,
    code: dict[str, str],
    imatrix: Imatrix | None,
) -> Quantized:
    method, name = METHODS[file.method], recipe.release.name
    most = recipe.quantize.split_bytes if recipe.quantize else None
    budget = file.bpw if isinstance(file, BudgetedFile) else None
    weighs = any(TYPES[one.type].weighs for one in tensors if one.name not in ENDS)
    used = imatrix if weighs or budget else None
    content = {
        "operation": "quantize",
        "header": conversion.key,
        "file_type": method.file_type,
        "types": [[tensor.name, tensor.type] for tensor in tensors],
        **({"imatrix": used.key} if used else {}),
        **({"bits_per_weight": budget} if budget else {}),
        "code": code,
    }
    key = digest(content)
    use = f"{file.method} with types of its own; its record lists them." if file.chooses else method.use
    if budget:
        use = f"At most {budget:g} bits per weight; the type of each tensor was chosen by measured error."
    chosen = {"method": file.method, **describe(file)} if file.label != file.method else {}
    return Quantized(
        file.label,
        key,
        f"{name}.{file.label}.gguf",
        method.file_type,
        use,
        tensors,
        chosen,
        runs(tensors, most) if most else (),
        used,
        budget,
    )


def chosen_types(recipe: Recipe, released: Node) -> tuple[tuple[Typed, ...], ...]:
    """Return, for each quantized file of a recipe, its tensors with their types."""
    if recipe.quantize is None or not recipe.quantize.methods:
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
            Choices(
                tuple(file.types.items()), file.output, file.embeddings, recipe.quantize.imatrix is not None
            ),
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
        if isinstance(file, BudgetedFile):
            least = smallest(tensors, matrix=bool(recipe.quantize and recipe.quantize.imatrix))
            if file.bpw < least:
                problems.append(
                    f"{where}.bpw: with the narrowest types, the file has {least:.3f} bits per weight, over the budget of "
                    f"{file.bpw:g}; give more"
                )
            continue
        lacking = lacking_matrix(tensors, METHODS[file.method])
        if lacking and recipe.quantize and not recipe.quantize.imatrix:
            kinds = ", ".join(sorted({tensor.type for tensor in lacking}))
            problems.append(
                f"{where}: {file.label} needs an importance matrix, without which {kinds} would be useless "
                f"({plural(len(lacking), 'tensor')}, such as {lacking[0].name}); give `quantize.imatrix`, or choose a wider method"
            )
        problems += [
            f"{where}: {one.name} cannot be {one.type}, since ggml ends without an importance matrix, and none exists for "
            "embeddings and output; choose a wider type"
            for one in tensors
            if one.name in ENDS and TYPES[one.type].needs_matrix
        ]
        problems += [f"{where}.types: {problem}" for problem in _unused(file, tensors)]
    if problems:
        raise RecipeError(problems)


def replaced_types(recipe: Recipe, released: Node) -> list[str]:
    """Return which types were replaced in which files, since rows do not fit, one line for each file."""
    lines = []
    files = recipe.quantize.files if recipe.quantize else ()
    for file, tensors in zip(files, chosen_types(recipe, released), strict=True):
        if isinstance(file, BudgetedFile):
            continue
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
