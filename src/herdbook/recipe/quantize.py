"""The section of a recipe on quantized files: their methods, and choices in place of the methods' own rules."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from herdbook.humanize import did_you_mean, parse_size
from herdbook.quantization.budget import NAMED
from herdbook.quantization.methods import METHODS
from herdbook.quantization.scheme import SchemeName
from herdbook.quantization.types import TYPES
from herdbook.recipe.loss import Loss
from herdbook.recipe.section import RELEASE_NAME_PATTERN, Name, Section
from herdbook.recipe.source import HubFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_FULL_WIDTH = tuple(name for name, kind in TYPES.items() if kind.is_full_width)


def _known(name: str, names: Collection[str], what: str) -> str:
    if name not in names:
        advice = did_you_mean(name, names) or f"; choose from {', '.join(names)}"
        raise ValueError(f"{name!r} is not {what} that llama.cpp makes{advice}")
    return name


def _pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    return pattern


QuantizationMethod = Annotated[
    str,
    AfterValidator(lambda name: _known(name, METHODS, "a quantization method")),
    WithJsonSchema({"type": "string", "enum": list(METHODS)}),
]
TensorTypeName = Annotated[
    str,
    AfterValidator(lambda name: _known(name, TYPES, "a type of tensors")),
    WithJsonSchema({"type": "string", "enum": list(TYPES)}),
]
Pattern = Annotated[str, AfterValidator(_pattern)]


class QuantizedFile(Section):
    """A quantized file for which some types are chosen in place of the method's own rules."""

    method: QuantizationMethod
    name: str | None = Field(
        None,
        pattern=RELEASE_NAME_PATTERN,
        description="the end of the file's name; the method's name if nothing else is chosen",
    )
    types: dict[Pattern, TensorTypeName] = Field(
        {}, description="types of tensors by regular expressions; the first that is found in a name counts"
    )
    output: TensorTypeName | None = Field(None, description="the type of the output matrix")
    embeddings: TensorTypeName | None = Field(None, description="the type of the token embeddings")

    @property
    def chooses(self) -> bool:
        """Whether a type is chosen."""
        return bool(self.types or self.output or self.embeddings)

    @property
    def label(self) -> str:
        """The end of the file's name."""
        return self.name or self.method

    @model_validator(mode="after")
    def _is_named(self) -> QuantizedFile:
        if self.chooses and (self.name is None or self.name in METHODS):
            raise ValueError(
                "a file with types of its own needs a `name` that is not a method's, so that it is not mistaken for that method's file"
            )
        if self.name in METHODS and self.name != self.method:
            raise ValueError(f"`name: {self.name}` is another method than {self.method}")
        if self.method in _FULL_WIDTH and self.types:
            raise ValueError(
                f"`types` has no effect on {self.method}, in which every matrix has full width; leave it out"
            )
        return self


class BudgetedFile(Section):
    """A quantized file of so many bits per weight, for which the type of each tensor is chosen by measured error."""

    bpw: float = Field(
        gt=1, le=16, description="the most bits per weight: the size of all tensors divided by the weights"
    )
    name: str | None = Field(
        None,
        pattern=RELEASE_NAME_PATTERN,
        description="the end of the file's name; 4.5bpw for a budget of 4.5",
    )
    types: ClassVar[dict[str, str]] = {}
    output: ClassVar[str | None] = None
    embeddings: ClassVar[str | None] = None
    chooses: ClassVar[bool] = True

    @property
    def method(self) -> str:
        """The method of about so many bits, which the header names."""
        return next(name for most, name in NAMED if self.bpw <= most)

    @property
    def label(self) -> str:
        """The end of the file's name."""
        return self.name or f"{self.bpw:g}bpw"

    @model_validator(mode="after")
    def _is_named(self) -> BudgetedFile:
        if self.name in METHODS:
            raise ValueError(
                f"`name: {self.name}` is a method's; choose another, so that nobody takes the file for that method's"
            )
        return self


def _kind_of_file(value: Any) -> str:
    if isinstance(value, Section):
        return type(value).__name__
    if isinstance(value, dict):
        return "BudgetedFile" if "bpw" in value else "QuantizedFile"
    return "name"


def _kind_of_matrix(value: Any) -> str:
    if isinstance(value, Section):
        return type(value).__name__
    if isinstance(value, dict) and "hub" in value:
        return "HubImatrix"
    return "GivenImatrix" if isinstance(value, dict) and "file" in value else "ComputedImatrix"


class Coverage(Section):
    """What is required of the experts that an importance matrix is computed with."""

    floor: int = Field(32, ge=1, description="the fewest tokens that have to reach each expert of each layer")
    below: Literal["fail", "mean"] = Field(
        "fail",
        description="what happens to an expert that fewer tokens reached: the build fails, or it takes the mean of its layer",
    )


class ComputedImatrix(Coverage):
    """An importance matrix, computed by the released model as it reads texts."""

    texts: list[Name] = Field(min_length=1, description="the texts, named as in `calibration`")

    @model_validator(mode="after")
    def _each_once(self) -> ComputedImatrix:
        if len(set(self.texts)) != len(self.texts):
            raise ValueError("texts: a text is named twice")
        return self


class GivenImatrix(Coverage):
    """An importance matrix of the released model that another program has computed."""

    file: str = Field(
        min_length=1,
        description="a file as llama-imatrix writes it (a GGUF, or of the older form), relative to the recipe",
    )


class HubImatrix(Coverage, HubFile):
    """The same, in a repository on the Hub."""

    file: str = Field(
        pattern=r"^\S.*\.(gguf|dat|imatrix)$",
        description="the name in the repository of a file as llama-imatrix writes it (a GGUF, or of the older form)",
    )


class Quantize(Section):
    """Which quantized files of the released model are made."""

    methods: list[
        Annotated[
            Annotated[QuantizationMethod, Tag("name")]
            | Annotated[QuantizedFile, Tag("QuantizedFile")]
            | Annotated[BudgetedFile, Tag("BudgetedFile")],
            Discriminator(_kind_of_file),
        ]
    ] = Field([], description="the files in GGUF")
    schemes: list[SchemeName] = Field(
        [],
        description="the formats for GPU servers, by the names of compressed-tensors' schemes, and for Macs (MLX); each becomes a release of its own",
    )
    imatrix: (
        Annotated[
            Annotated[ComputedImatrix, Tag("ComputedImatrix")]
            | Annotated[GivenImatrix, Tag("GivenImatrix")]
            | Annotated[HubImatrix, Tag("HubImatrix")],
            Discriminator(_kind_of_matrix),
        ]
        | None
    ) = Field(None, description="what weighs the errors of each column; the types of the fewest bits need it")
    split: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]*(KB|MB|GB)$",
        description="the largest size of the weights in a file; a larger one is released in parts (KB, MB, GB: decimal)",
    )
    evaluate: bool = Field(True, description="measure each file, dequantized into the reference model")
    runtime: Literal["llama.cpp"] | None = Field(
        None,
        description="measure each file a second time, run by llama.cpp itself, which must be installed (llama-cpp-python)",
    )
    loss: Loss | None = Field(None, description="measure what each file loses, token by token")

    @model_validator(mode="after")
    def _makes_something(self) -> Quantize:
        if not (self.methods or self.schemes):
            raise ValueError(
                "give `methods` (GGUF files), `schemes` (formats for GPU servers and Macs), or both"
            )
        if len(set(self.schemes)) != len(self.schemes):
            raise ValueError("schemes: a scheme is named twice")
        given = [key for key in ("imatrix", "split", "runtime") if getattr(self, key)]
        if given and not self.methods:
            raise ValueError(f"{given[0]}: is about GGUF files, and `methods` names none; leave it out")
        return self

    @model_validator(mode="after")
    def _has_known_sizes(self) -> Quantize:
        if self.split and any(isinstance(one, BudgetedFile) for one in self.methods):
            raise ValueError(
                "split: the sizes of the tensors of a file with `bpw` are known after it is made only; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _compares_both(self) -> Quantize:
        if self.runtime and not self.evaluate:
            raise ValueError(
                "runtime: is compared with the dequantized file, which `evaluate: false` does not measure"
            )
        return self

    @property
    def split_bytes(self) -> int | None:
        """The largest size of the weights in a file; None if files are not split."""
        return parse_size(self.split) if self.split else None

    @property
    def files(self) -> tuple[QuantizedFile | BudgetedFile, ...]:
        """The files, in order."""
        return tuple(
            QuantizedFile(method=one, name=None) if isinstance(one, str) else one for one in self.methods
        )


def quantize_problems(quantize: Quantize) -> Iterator[str]:
    """Yield what is wrong with the section as a whole."""
    labels = Counter(file.label for file in quantize.files)
    for label, count in labels.items():
        if count > 1:
            same = label in METHODS
            yield "quantize.methods: " + (
                "a method is named twice" if same else f"two files are named {label}"
            )


def describe(file: QuantizedFile | BudgetedFile) -> dict[str, Any]:
    """Return a record's entries on the choices in the recipe; empty without choices."""
    chosen = {
        "bpw": file.bpw if isinstance(file, BudgetedFile) else None,
        "types": [list(pair) for pair in file.types.items()],
        "output": file.output,
        "embeddings": file.embeddings,
    }
    return {key: value for key, value in chosen.items() if value}
