"""Rank rules that follow from the spectrum of a matrix: a number, a share, a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field

from herdbook.recipe.section import Section

if TYPE_CHECKING:
    from herdbook.recipe.rank import RankRule

# Rules whose threshold follows from the spectrum itself: their names in recipes, and their names for people.
ThresholdName = Literal["mp-edge", "gavish-donoho", "laser-rmt"]
THRESHOLD_WORDS: dict[ThresholdName, str] = {
    "mp-edge": "Marchenko-Pastur edge",
    "gavish-donoho": "Gavish-Donoho threshold",
    "laser-rmt": "laserRMT's threshold",
}

CanonicalRule: TypeAlias = int | str | dict[str, Any]  # a rule in keys, records and results


class Rule:
    """What most rules have in common."""

    @property
    def assumes_noise(self) -> bool:
        """Whether it assumes a low-rank signal in white noise, which trained weights are not."""
        return False

    @property
    def needs_text(self) -> bool:
        """Whether it needs the matrix's outputs on calibration text."""
        return False

    @property
    def spreads(self) -> float | None:
        """The share of the ranks of all matrices that it spreads over them; None if it applies to each matrix by itself."""
        return None

    def at(self, rank: int) -> RankRule:
        """Return the rule for one matrix that gets this rank of what is spread.

        Raises:
            TypeError: If nothing is spread.
        """
        raise TypeError(f"{self} spreads nothing, so it gives no matrix rank {rank}")


@dataclass(frozen=True)
class FixedRank(Rule):
    """Keeps a given number of singular values."""

    rank: int

    @property
    def name(self) -> str:
        """Its name."""
        return "rank"

    @property
    def canonical(self) -> int:
        """Its JSON form in keys, records and results: as in a recipe."""
        return self.rank

    @property
    def label(self) -> str:
        """Its form in headings."""
        return f"rank {self.rank}"

    @property
    def words(self) -> str:
        """Its form in sentences."""
        return self.label


@dataclass(frozen=True)
class Threshold(Rule):
    """Keeps the singular values above a threshold that follows from all of them."""

    name: ThresholdName

    @property
    def assumes_noise(self) -> bool:
        """Whether it assumes a low-rank signal in white noise, which trained weights are not."""
        return self.name != "laser-rmt"

    @property
    def canonical(self) -> str:
        """Its JSON form."""
        return self.name

    @property
    def label(self) -> str:
        """Its form in headings."""
        return self.name

    @property
    def words(self) -> str:
        """Its form in sentences."""
        return THRESHOLD_WORDS[self.name]


class KeyedRule(Rule, Section):
    """A rule that is written as a mapping with one key."""

    @property
    def name(self) -> str:
        """Its key."""
        (name,) = self.canonical
        return name

    @property
    def canonical(self) -> dict[str, Any]:
        """Its JSON form."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def label(self) -> str:
        """Its form in headings."""
        return f"{self.name} {self.canonical[self.name]:g}"


class Fraction(KeyedRule):
    """Keeps a fixed share of the singular values."""

    fraction: float = Field(
        gt=0, le=1, description="share of the min(rows, columns) values that is kept; at least one value is"
    )

    @property
    def words(self) -> str:
        """Its form in sentences."""
        return f"{self.fraction * 100:g} % of the rank"


class Energy(KeyedRule):
    """Keeps the fewest singular values that contain a share of the sum of all squares."""

    energy: float = Field(gt=0, le=1, description="share of the sum of squared singular values that is kept")

    @property
    def words(self) -> str:
        """Its form in sentences."""
        return f"{self.energy * 100:g} % of the energy"


class Budget(KeyedRule):
    """Keeps a share of the singular values of all matrices together: of each matrix as many as lose least in sum."""

    budget: float = Field(
        gt=0,
        le=1,
        description="share of the singular values of all chosen matrices together that is kept; at least one of each is",
    )

    @property
    def spreads(self) -> float:
        """Its share."""
        return self.budget

    def at(self, rank: int) -> FixedRank:
        """Return the rule for one matrix that gets this rank."""
        return FixedRank(rank)

    @property
    def words(self) -> str:
        """Its form in sentences."""
        return f"{self.budget * 100:g} % of the rank of all matrices together"


class KnownNoise(KeyedRule):
    """Keeps the singular values above Gavish and Donoho's threshold for noise of a known level."""

    gavish_donoho: float = Field(
        alias="gavish-donoho", gt=0, description="standard deviation of the noise in each entry"
    )

    @property
    def assumes_noise(self) -> bool:
        """Always true."""
        return True

    @property
    def words(self) -> str:
        """Its form in sentences."""
        return f"{THRESHOLD_WORDS['gavish-donoho']}, noise {self.gavish_donoho:g}"
