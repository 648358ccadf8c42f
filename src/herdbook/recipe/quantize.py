"""The section of a recipe on quantized files: their methods, and choices in place of the methods' own rules."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from herdbook.humanize import did_you_mean
from herdbook.quantization.methods import METHODS
from herdbook.quantization.types import TYPES
from herdbook.recipe.loss import Loss
from herdbook.recipe.section import RELEASE_NAME_PATTERN, Section

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


class Quantize(Section):
    """Which quantized files of the released model are made."""

    methods: list[
        Annotated[
            Annotated[QuantizationMethod, Tag("name")] | Annotated[QuantizedFile, Tag("QuantizedFile")],
            Discriminator(lambda value: "QuantizedFile" if isinstance(value, dict | Section) else "name"),
        ]
    ] = Field(min_length=1)
    evaluate: bool = Field(True, description="measure each file, dequantized into the reference model")
    runtime: Literal["llama.cpp"] | None = Field(
        None,
        description="measure each file a second time, run by llama.cpp itself, which must be installed (llama-cpp-python)",
    )
    loss: Loss | None = Field(None, description="measure what each file loses, token by token")

    @model_validator(mode="after")
    def _compares_both(self) -> Quantize:
        if self.runtime and not self.evaluate:
            raise ValueError(
                "runtime: is compared with the dequantized file, which `evaluate: false` does not measure"
            )
        return self

    @property
    def files(self) -> tuple[QuantizedFile, ...]:
        """The files, in order."""
        return tuple(
            one if isinstance(one, QuantizedFile) else QuantizedFile(method=one, name=None)
            for one in self.methods
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


def describe(file: QuantizedFile) -> dict[str, Any]:
    """Return a record's entries on the choices in the recipe; empty without choices."""
    chosen = {
        "types": [list(pair) for pair in file.types.items()],
        "output": file.output,
        "embeddings": file.embeddings,
    }
    return {key: value for key, value in chosen.items() if value}
