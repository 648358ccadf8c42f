"""The scores of suites on the card: for each suite, a table of the measured models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.comparison.scores import suite_scores

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Plan
    from herdbook.steps.card.results import Measurement


@dataclass(frozen=True)
class SuiteTable:
    """The scores of one suite.

    Args:
        title: Its title.
        note: What distinguishes it from what its name promises; may be empty.
        names: The names of its scores.
        rows: For each measurement, its scores in that order, and their mean.
    """

    title: str
    note: str
    names: tuple[str, ...]
    rows: tuple[tuple[Measurement, tuple[float, ...], float], ...]


def suite_tables(plan: Plan, measurements: Iterable[Measurement]) -> tuple[SuiteTable, ...]:
    """Return the tables of a plan's suites that have scores."""
    by_name = {name: task for task in plan.lock.tasks.values() for name in (*task.definitions, *task.groups)}
    measured = list(measurements)
    tables = []
    for locked in plan.lock.suites.values():
        suite = locked.suite
        if not suite.scores:
            continue
        rows = []
        for item in measured:
            results = {
                (task, label): (float(score.value), result.documents)
                for task, result in item.tasks.items()
                for label, score in result.scores.items()
            }
            found = tuple(suite_scores(suite, lambda name: by_name[name].leaves(name), results).values())
            rows.append((item, found, sum(found) / len(found)))
        tables.append(SuiteTable(suite.title, suite.note, tuple(suite.scores), tuple(rows)))
    return tuple(tables)
