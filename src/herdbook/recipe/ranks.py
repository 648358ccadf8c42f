"""The sections of a recipe on ranks and claims: snapshots of leaderboards, and what the author asserts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from herdbook.humanize import did_you_mean
from herdbook.recipe.section import Name, Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from herdbook.recipe.evaluate import Evaluate


class Bounds(Section):
    """Bounds of the numbers in a column."""

    at_least: float | None = Field(None, allow_inf_nan=False)
    at_most: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _bounded(self) -> Bounds:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most, or both")
        return self


class Origin(Section):
    """Where a snapshot is fetched from: an address, or a file of a data set on the Hub."""

    url: str | None = Field(None, pattern=r"^https?://[^\s@]+$", description="its address")
    dataset: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$",
        description="a data set on the Hub, `owner/name` or `owner/name@revision`",
    )
    file: str | None = Field(None, min_length=1, description="the file in the data set")

    @model_validator(mode="after")
    def _one_place(self) -> Origin:
        if (self.url is None) == (self.dataset is None) or (self.dataset is None) != (self.file is None):
            raise ValueError("give `url`, or `dataset` and `file`")
        return self

    @property
    def uri(self) -> str:
        """What it is called in locks."""
        return self.url or f"hf://datasets/{self.dataset}/{self.file}"


class Leaderboard(Section):
    """A snapshot of a leaderboard, in which the released model is ranked by its measured score."""

    snapshot: str = Field(
        pattern=r"\.(csv|json|jsonl|parquet)$",
        description="file relative to the recipe: CSV with a header, a JSON list of objects, or lines of them, or Parquet",
    )
    fetch: Origin | None = Field(
        None, description="where `herdbook lock` fetches the snapshot from if the file does not exist yet"
    )
    title: str = Field(description="the leaderboard's name on the card")
    as_of: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="day of the snapshot, YYYY-MM-DD")
    source: str = Field(description="where the snapshot was taken from")
    model_column: str = Field(description="column with the models' names")
    score_column: str = Field(description="column with the scores")
    direction: Literal["higher", "lower"] = Field(description="which scores are better")
    task: str | None = Field(None, description="the evaluation task whose result is this model's score")
    metric: str | None = Field(
        None,
        description="the metric of that task; of a task with filters, `metric,filter`, such as `exact_match,strict-match`",
    )
    row: dict[str, str] | None = Field(
        None,
        min_length=1,
        description="in the place of `task` and `metric`: the leaderboard's own row of this model, by what some of its "
        "columns contain, such as its name and its revision",
    )
    where: dict[str, str | list[str] | Bounds] = Field(
        {},
        description="only rows whose column has this text, one of these texts, or a number within bounds",
    )

    @model_validator(mode="after")
    def _one_score(self) -> Leaderboard:
        if (self.task is None) != (self.metric is None) or (self.task is None) == (self.row is None):
            raise ValueError("give `task` and `metric` of this model's own measurement, or its `row`")
        return self

    @property
    def by(self) -> str:
        """What the ranking is by."""
        return self.metric or self.score_column


class AssertedRank(Section):
    """A place in a leaderboard of the recipe."""

    leaderboard: Name
    place: int = Field(ge=1)


class AssertedBetter(Section):
    """An improvement upon a measured model, in the main metric of a task."""

    than: Name
    task: str


class Claim(Section):
    """A statement of the author, which the card prints as asserted. With `rank` or `better` this build checks it."""

    text: str = Field(min_length=1)
    by: str = Field(description="who states it")
    on: str | None = Field(
        None,
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        description="the day of the statement, YYYY-MM-DD, if it is known",
    )
    source: str | None = Field(None, description="where it was stated")
    rank: AssertedRank | None = Field(None, description="the place that it asserts, which the build checks")
    better: AssertedBetter | None = Field(
        None, description="the improvement that it asserts, which the build checks"
    )
    waived: str | None = Field(
        None,
        min_length=1,
        description="why it stays on the card although the build's evidence contradicts it; the card prints it",
    )

    @model_validator(mode="after")
    def _waives_something(self) -> Claim:
        if self.waived and not (self.rank or self.better):
            raise ValueError("waived: nothing is checked without `rank` or `better`")
        return self


def claim_problems(
    claims: Sequence[Claim], boards: Mapping[str, Leaderboard], evaluate: Evaluate | None, released: str
) -> list[str]:
    """Return what is wrong with what claims assert.

    Args:
        claims: The claims.
        boards: The leaderboards.
        evaluate: What is measured.
        released: Name of the released model.
    """
    problems = []
    against = evaluate.compare.get(released, []) if evaluate else []
    for index, claim in enumerate(claims):
        if claim.rank and claim.rank.leaderboard not in boards:
            name = claim.rank.leaderboard
            problems.append(
                f"claims.{index}.rank.leaderboard: no leaderboard is named {name!r}{did_you_mean(name, boards)}"
            )
        if claim.better and claim.better.than not in against:
            problems.append(
                f"claims.{index}.better: evaluate.compare does not compare {released!r} with {claim.better.than!r}"
            )
    return problems
