"""The sections of a recipe on its release: what is released, reported and quantized."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from herdbook.recipe.hub_values import Languages, Licensed
from herdbook.recipe.section import RELEASE_NAME_PATTERN, Name, Section

QuantizationMethod = Literal["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S"]


class Quote(Section):
    """The quotation that opens the card."""

    text: str = Field(min_length=1)
    author: str | None = None


class Release(Licensed):
    """What is released, and the content of its card beyond measurements."""

    model: Name = Field(description="the model that is released")
    name: str = Field(
        pattern=RELEASE_NAME_PATTERN, description="name of the release, on the card and in file names"
    )
    repo: str | None = Field(
        None, pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name on the Hub, where it will be published"
    )
    language: Languages = Field(["en"], description="codes of ISO 639, such as en")
    summary: str | None = Field(None, description="a sentence or two that introduce the model")
    quote: Quote | None = None


class Routing(Section):
    """The texts of the report on the released mixture's routers."""

    texts: list[Name] = Field(
        min_length=1,
        description="kinds of text, named as in `calibration`: each expert's share of their tokens is reported",
    )


class Quantize(Section):
    """Which quantized files of the released model are made."""

    methods: list[QuantizationMethod] = Field(min_length=1)
    evaluate: bool = Field(True, description="measure each file, dequantized into the reference model")
    runtime: Literal["llama.cpp"] | None = Field(
        None,
        description="measure each file a second time, run by llama.cpp itself, which must be installed (llama-cpp-python)",
    )

    @model_validator(mode="after")
    def _compares_both(self) -> Quantize:
        if self.runtime and not self.evaluate:
            raise ValueError(
                "runtime: is compared with the dequantized file, which `evaluate: false` does not measure"
            )
        return self
