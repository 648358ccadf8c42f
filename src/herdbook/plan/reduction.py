"""How parts of LASER are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from herdbook.plan.interface import Interface

if TYPE_CHECKING:
    from herdbook.plan.interface import CalibrationText, Parameters, Rule
    from herdbook.recipe import RankRule


@dataclass(frozen=True)
class Whitening:
    """Matrices are decomposed by their outputs on a text.

    Args:
        text: The text.
        model: Key of the model that reads it.
    """

    text: CalibrationText
    model: str

    @property
    def parameters(self) -> Parameters:
        """Text and model."""
        return {"calibration": self.text.parameters, "model": self.model}


class _Reduction(Interface):
    whitening: Whitening | None

    @property
    def folders(self) -> tuple[str, ...]:
        """The model that reads the text."""
        return (self.whitening.model,) if self.whitening else ()

    @property
    def text(self) -> CalibrationText | None:
        """The text by which matrices are decomposed."""
        return self.whitening.text if self.whitening else None


@dataclass(frozen=True)
class Reduce(_Reduction):
    """Matrices are reduced, all by one rank rule.

    Args:
        rank: The rule.
        whitening: The text and model that are read; None if the rule needs no text.
    """

    rule: ClassVar[Rule] = "laser"
    rank: RankRule
    whitening: Whitening | None = None

    @property
    def parameters(self) -> Parameters:
        """The rank rule, and the whitening."""
        return {"rank": self.rank.canonical, **(self.whitening.parameters if self.whitening else {})}


@dataclass(frozen=True)
class ReduceAsSearched(_Reduction):
    """Matrices are reduced as a search has chosen.

    Args:
        search: Key of the search.
        whitening: The text and model that are read; None if no rank rule that the search tries needs text.
    """

    rule: ClassVar[Rule] = "laser"
    search: str
    whitening: Whitening | None = None

    @property
    def parameters(self) -> Parameters:
        """The search, and the whitening."""
        return {"search": self.search, **(self.whitening.parameters if self.whitening else {})}

    @property
    def search_key(self) -> str:
        """The search."""
        return self.search
