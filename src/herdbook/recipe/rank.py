"""Rank rules: how much of a matrix is kept. A rule is a number, a word, or a mapping of one key to its argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError

from herdbook.recipe.section import Section

# Rules that take their threshold from the spectrum itself, in the recipe's words, and for people.
ThresholdName = Literal["mp-edge", "gavish-donoho", "laser-rmt"]
THRESHOLD_WORDS: dict[ThresholdName, str] = {
    "mp-edge": "Marchenko-Pastur edge",
    "gavish-donoho": "Gavish-Donoho threshold",
    "laser-rmt": "laserRMT's threshold",
}


@dataclass(frozen=True)
class FixedRank:
    """Keep so many singular values."""

    rank: int

    @property
    def assumes_noise(self) -> bool:
        """Whether it takes a matrix for a signal of low rank in white noise, which trained weights are not."""
        return False

    @property
    def needs_text(self) -> bool:
        """Whether it looks at what the matrix makes of calibration text."""
        return False

    @property
    def name(self) -> str:
        """What it is called."""
        return "rank"

    @property
    def canonical(self) -> int:
        """The rule as JSON has it in keys, records and results: as people write it."""
        return self.rank

    @property
    def label(self) -> str:
        """The rule as a heading."""
        return f"rank {self.rank}"

    @property
    def words(self) -> str:
        """The rule in a sentence."""
        return self.label


@dataclass(frozen=True)
class Threshold:
    """Keep the singular values above a threshold that follows from all of them."""

    name: ThresholdName

    @property
    def needs_text(self) -> bool:
        """Whether it looks at what the matrix makes of calibration text."""
        return False

    @property
    def assumes_noise(self) -> bool:
        """Whether it takes a matrix for a signal of low rank in white noise, which trained weights are not."""
        return self.name != "laser-rmt"

    @property
    def canonical(self) -> str:
        """The rule as JSON has it."""
        return self.name

    @property
    def label(self) -> str:
        """The rule as a heading."""
        return self.name

    @property
    def words(self) -> str:
        """The rule in a sentence."""
        return THRESHOLD_WORDS[self.name]


class _Keyed(Section):
    """A rule that is written as a mapping of one key to its argument."""

    @property
    def assumes_noise(self) -> bool:
        """Whether it takes a matrix for a signal of low rank in white noise, which trained weights are not."""
        return False

    @property
    def needs_text(self) -> bool:
        """Whether it looks at what the matrix makes of calibration text."""
        return False

    @property
    def name(self) -> str:
        """Its key."""
        (name,) = self.canonical
        return name

    @property
    def canonical(self) -> dict[str, Any]:
        """The rule as JSON has it."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def label(self) -> str:
        """The rule as a heading."""
        return f"{self.name} {self.canonical[self.name]:g}"


class Fraction(_Keyed):
    """Keep a fixed share of the singular values."""

    fraction: float = Field(gt=0, le=1, description="share of min(rows, columns) that is kept, at least one")

    @property
    def words(self) -> str:
        """The rule in a sentence."""
        return f"{self.fraction * 100:g} % of the rank"


class Energy(_Keyed):
    """Keep as few singular values as hold a share of the sum of all squares."""

    energy: float = Field(gt=0, le=1, description="share of the sum of squared singular values that is kept")

    @property
    def words(self) -> str:
        """The rule in a sentence."""
        return f"{self.energy * 100:g} % of the energy"


class KnownNoise(_Keyed):
    """The threshold of Gavish and Donoho for noise that is known."""

    gavish_donoho: float = Field(
        alias="gavish-donoho", gt=0, description="standard deviation of the noise in an entry"
    )

    @property
    def assumes_noise(self) -> bool:
        """It does."""
        return True

    @property
    def words(self) -> str:
        """The rule in a sentence."""
        return f"{THRESHOLD_WORDS['gavish-donoho']}, noise {self.gavish_donoho:g}"


Count = Annotated[int, Field(ge=1, strict=True)]

# The rules that are mappings, by their key.
_KEYS = {"fraction": "Fraction", "energy": "Energy", "gavish-donoho": "KnownNoise", "svd-llm": "SvdLlm"}


def _tag(value: Any) -> str | None:
    """Return which rank rule a value is, by its form."""
    if isinstance(value, Section):
        return type(value).__name__
    if isinstance(value, int) and not isinstance(value, bool):
        return "count"
    if isinstance(value, str):
        return "word"
    found = [kind for key, kind in _KEYS.items() if isinstance(value, dict) and key in value]
    return found[0] if len(found) == 1 else None


HowMuch = Annotated[
    Annotated[Count, Tag("count")] | Annotated[Fraction, Tag("Fraction")] | Annotated[Energy, Tag("Energy")],
    Discriminator(
        _tag,
        custom_error_type="how_much",
        custom_error_message="give a number, {fraction: 0.9} or {energy: 0.99}",
    ),
]


class SvdLlm(_Keyed):
    """Cut what least changes the matrix's outputs on calibration text, instead of the matrix itself."""

    svd_llm: HowMuch = Field(
        alias="svd-llm", description="how much is kept: a rank, {fraction: 0.9} or {energy: 0.999}"
    )

    @property
    def inner(self) -> RankRule:
        """The rule that is applied to the spectrum of the outputs."""
        return rank_rule(self.svd_llm)

    @property
    def needs_text(self) -> bool:
        """It does."""
        return True

    @property
    def label(self) -> str:
        """The rule as a heading."""
        return f"svd-llm, {self.inner.label}"

    @property
    def words(self) -> str:
        """The rule in a sentence."""
        return f"SVD-LLM, {self.inner.words}"


# A rule as a recipe has it.
Rank = Annotated[
    Annotated[ThresholdName, Tag("word")]
    | Annotated[Count, Tag("count")]
    | Annotated[Fraction, Tag("Fraction")]
    | Annotated[Energy, Tag("Energy")]
    | Annotated[KnownNoise, Tag("KnownNoise")]
    | Annotated[SvdLlm, Tag("SvdLlm")],
    Discriminator(
        _tag,
        custom_error_type="rank_rule",
        custom_error_message="give a number, mp-edge, gavish-donoho, laser-rmt, or one of "
        "fraction, energy, gavish-donoho, svd-llm as {name: value}",
    ),
]

RankRule: TypeAlias = FixedRank | Threshold | Fraction | Energy | KnownNoise | SvdLlm

_RANK: TypeAdapter[Any] = TypeAdapter(Rank)


def rank_rule(value: Any) -> RankRule:
    """Return the rank rule that a value of a recipe, a key, a record or a search's result stands for.

    Raises:
        ValueError: If it is not a rank rule.
    """
    try:
        found: int | ThresholdName | Fraction | Energy | KnownNoise | SvdLlm = _RANK.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"not a rank rule: {value!r}") from error
    match found:
        case int():
            return FixedRank(found)
        case str():
            return Threshold(found)
        case _:
            return found
