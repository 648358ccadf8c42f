"""What a search writes: its ranking, its budgets, its trials and their outcome, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from herdbook.recipe.spectral import CanonicalRule


class Difference(TypedDict):
    """How the windows' losses differ: the mean, its standard error, and its upper limit."""

    mean: float
    stderr: float
    upper: float


class Compared(Difference):
    """A difference, with the mean losses before and after."""

    before: float
    after: float


class Trial(TypedDict):
    """A reduction that was tried: of which matrix, by which rule, and what it did to the windows' losses."""

    tensor: str
    rule: CanonicalRule
    rank: int
    difference: Difference
    against_start: Difference
    kept: bool
    losses: list[float]


class Ranked(TypedDict):
    """A candidate, and its score in the ranking."""

    tensor: str
    score: float


class Budget(TypedDict):
    """A budget of ranks: its rule, the rank of each matrix that it was spread into, and the level of their last directions."""

    rule: CanonicalRule
    ranks: dict[str, int]
    level: float


class Outcome(TypedDict):
    """The outcome of trials: the accepted rules by matrix, all trials, and the losses at the start and at the end."""

    chosen: dict[str, CanonicalRule]
    trials: list[Trial]
    start: list[float]
    end: list[float]
    difference: Compared
    confirmation: Compared
