"""How the release stands beside its relatives: verdicts of the comparisons in a sentence, and a short table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.comparison.verdict import BETTER, UNTESTED, WORSE
from herdbook.humanize import plural
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.plan import Plan
    from herdbook.steps.card.choices import Choice
    from herdbook.steps.card.compared import Compared
    from herdbook.steps.card.results import Column, Measurement, Score


@dataclass(frozen=True)
class Standing:
    """The release compared with one other model: titles of the tasks by verdict.

    Args:
        other: The other model.
        better: Tasks in which the release is better.
        worse: Tasks in which it is worse.
        same: Tasks without a measurable difference.
        untested: Tasks in which too little was measured for a test.
    """

    other: str
    better: tuple[str, ...]
    worse: tuple[str, ...]
    same: tuple[str, ...]
    untested: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many tasks were compared."""
        return sum(map(len, (self.better, self.worse, self.same, self.untested)))

    @property
    def in_short(self) -> str:
        """How many tasks have which verdict, in a few words."""
        counted = {
            "better on": self.better,
            "worse on": self.worse,
            "not measurably different on": self.same,
            "not tested on": self.untested,
        }
        parts = [f"{words} {len(tasks)}" for words, tasks in counted.items() if tasks]
        return f"{', '.join(parts)} of {plural(self.total, 'task')}"


@dataclass(frozen=True)
class Row:
    """A row of the short table.

    Args:
        column: The task.
        own: The release's score.
        base: That of its base.
        parent: The name and the score of the best of the other measured parents.
        file: The score of the recommended file.
    """

    column: Column
    own: Score
    base: Score | None
    parent: tuple[str, Score] | None
    file: Score | None


@dataclass(frozen=True)
class Standings:
    """All of it: the comparisons of the release, the rows, and whose columns they have."""

    compared: tuple[Standing, ...]
    rows: tuple[Row, ...]
    base: str | None
    file: str | None

    @property
    def with_parents(self) -> bool:
        """Whether a parent besides the base was measured."""
        return any(row.parent for row in self.rows)


def standings(
    plan: Plan,
    measurements: Sequence[Measurement],
    columns: Sequence[Column],
    compared: Sequence[Compared],
    choices: Sequence[Choice],
) -> Standings | None:
    """Return how the release stands; None if it was not measured."""
    models = {m.node: m for m in measurements if m.method is None}
    own = models.get(plan.released.name)
    if own is None:
        return None
    recommended = next((choice.method for choice in choices if choice.recommended), None)
    file = next(
        (m for m in measurements if m.node == own.node and m.method == recommended and not m.runtime), None
    )
    base = _base(plan, models)
    parents = [name for name in dict.fromkeys(plan.released.parents) if name in models and name != base]
    rows = []
    for column in columns:
        best: tuple[str, Score] | None = None
        for name in parents:
            score = models[name].score(column)
            if best is None or score.beats(best[1]):
                best = name, score
        rows.append(
            Row(
                column,
                own.score(column),
                models[base].score(column) if base else None,
                best,
                file.score(column) if recommended and file else None,
            )
        )
    return Standings(tuple(_verdicts(plan.released.name, compared)), tuple(rows), base, recommended)


def _verdicts(name: str, compared: Sequence[Compared]) -> list[Standing]:
    mine = [row for row in compared if row.comparison.model == name]
    found = []
    for other in dict.fromkeys(row.comparison.other for row in mine):
        rows = [row for row in mine if row.comparison.other == other]
        by = {
            verdict: tuple(dict.fromkeys(row.title for row in rows if row.comparison.verdict == verdict))
            for verdict in (BETTER, WORSE, UNTESTED)
        }
        rest = tuple(dict.fromkeys(row.title for row in rows if row.comparison.verdict not in by))
        found.append(Standing(other, by[BETTER], by[WORSE], rest, by[UNTESTED]))
    return found


def _base(plan: Plan, models: dict[str, Measurement]) -> str | None:
    """Return the measured model that the release's base is, or came from: the nearest one; None if none was measured."""
    recipe = plan.released.recipe
    if isinstance(recipe, Moe):
        name: str | None = recipe.moe.base
    else:
        given = getattr(getattr(recipe, "merge", None), "base", None)
        name = given or next(iter(plan.released.parents), None)
    while name and name not in models:
        name = next(iter(plan.nodes[name].parents), None)
    return name
