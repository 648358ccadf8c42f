"""Rank rules: how much of a matrix is kept. A rule is a number, a word, or a mapping with one key."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError

from herdbook.recipe.section import Section
from herdbook.recipe.spectral import (
    Budget,
    Energy,
    FixedRank,
    Fraction,
    KeyedRule,
    KnownNoise,
    Threshold,
    ThresholdName,
)

Count = Annotated[int, Field(ge=1, strict=True)]

# The class of each rule that is a mapping, by its key.
_KEYS = {
    "fraction": "Fraction",
    "energy": "Energy",
    "budget": "Budget",
    "clustered": "Clustered",
    "gavish-donoho": "KnownNoise",
    "svd-llm": "SvdLlm",
}


def _tag(value: Any) -> str | None:
    """Return the tag of the rank rule that a value is, by its form; None if it is not one."""
    if isinstance(value, Section):
        return type(value).__name__
    if isinstance(value, int) and not isinstance(value, bool):
        return "count"
    if isinstance(value, str):
        return "word"
    tags = [tag for key, tag in _KEYS.items() if isinstance(value, dict) and key in value]
    return tags[0] if len(tags) == 1 else None


HowMuch = Annotated[
    Annotated[Count, Tag("count")]
    | Annotated[Fraction, Tag("Fraction")]
    | Annotated[Energy, Tag("Energy")]
    | Annotated[Budget, Tag("Budget")],
    Discriminator(
        _tag,
        custom_error_type="how_much",
        custom_error_message="give a number, {fraction: 0.9}, {energy: 0.99} or {budget: 0.9}",
    ),
]


Each = Annotated[
    Annotated[Count, Tag("count")] | Annotated[Fraction, Tag("Fraction")],
    Discriminator(
        lambda value: tag if (tag := _tag(value)) in {"count", "Fraction"} else None,
        custom_error_type="each",
        custom_error_message="give a number or {fraction: 0.9}: all clusters keep the same rank",
    ),
]


class Clusters(Section):
    """How many clusters, and what is kept of each."""

    clusters: int = Field(ge=2, le=64, strict=True, description="how many clusters the rows fall into")
    keep: Each = Field(
        description="how much of each cluster is kept: a rank, or {fraction: 0.9} of the values that a cluster of "
        "average size has"
    )


class Clustered(KeyedRule):
    """Clusters the rows around subspaces, and reduces each cluster by itself."""

    clustered: Clusters = Field(description="clusters: how many; keep: what is kept of each")

    @property
    def inner(self) -> RankRule:
        """The rule that applies to each cluster."""
        return rank_rule(self.clustered.keep)

    def rank_of_each(self, rows: int, columns: int) -> int:
        """Return the rank of each cluster of a matrix."""
        if isinstance(self.clustered.keep, int):
            return self.clustered.keep
        return max(
            1, math.floor(self.clustered.keep.fraction * min(rows // self.clustered.clusters, columns))
        )

    @property
    def label(self) -> str:
        """Its form in headings."""
        return f"{self.clustered.clusters} clusters, {self.inner.label}"

    @property
    def words(self) -> str:
        """Its form in sentences."""
        return f"rows in {self.clustered.clusters} clusters, {self.inner.words} of each"


class SvdLlm(KeyedRule):
    """Removes what changes the matrix's outputs on calibration text least, instead of the matrix itself."""

    svd_llm: HowMuch = Field(
        alias="svd-llm",
        description="how much is kept: a rank, {fraction: 0.9}, {energy: 0.999} or {budget: 0.9}",
    )

    @property
    def inner(self) -> RankRule:
        """The rule that applies to the spectrum of the outputs."""
        return rank_rule(self.svd_llm)

    @property
    def needs_text(self) -> bool:
        """Always true."""
        return True

    @property
    def spreads(self) -> float | None:
        """The share of the inner rule."""
        return self.inner.spreads

    def at(self, rank: int) -> SvdLlm:
        """Return the rule for one matrix that gets this rank."""
        return SvdLlm.model_validate({"svd-llm": self.inner.at(rank).canonical})

    @property
    def label(self) -> str:
        """Its form in headings."""
        return f"svd-llm, {self.inner.label}"

    @property
    def words(self) -> str:
        """Its form in sentences."""
        return f"SVD-LLM, {self.inner.words}"


# A rule, in the form that it has in a recipe.
Rank = Annotated[
    Annotated[ThresholdName, Tag("word")]
    | Annotated[Count, Tag("count")]
    | Annotated[Fraction, Tag("Fraction")]
    | Annotated[Energy, Tag("Energy")]
    | Annotated[Budget, Tag("Budget")]
    | Annotated[Clustered, Tag("Clustered")]
    | Annotated[KnownNoise, Tag("KnownNoise")]
    | Annotated[SvdLlm, Tag("SvdLlm")],
    Discriminator(
        _tag,
        custom_error_type="rank_rule",
        custom_error_message="give a number, mp-edge, gavish-donoho, laser-rmt, or one of "
        "fraction, energy, budget, clustered, gavish-donoho, svd-llm as {name: value}",
    ),
]

RankRule: TypeAlias = FixedRank | Threshold | Fraction | Energy | Budget | Clustered | KnownNoise | SvdLlm

_RANK: TypeAdapter[Any] = TypeAdapter(Rank)


def rank_rule(value: Any) -> RankRule:
    """Return the rank rule with a JSON form, from a recipe, a key, a record or a search's result.

    Raises:
        ValueError: If it is not a rank rule.
    """
    try:
        rank: int | ThresholdName | Fraction | Energy | Budget | Clustered | KnownNoise | SvdLlm = (
            _RANK.validate_python(value)
        )
    except ValidationError as error:
        raise ValueError(f"not a rank rule: {value!r}") from error
    match rank:
        case int():
            return FixedRank(rank)
        case str():
            return Threshold(rank)
        case _:
            return rank
