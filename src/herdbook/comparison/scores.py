"""The scores of suites, from the results of their tasks: as leaderboards normalize them, between guessing and the best."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from herdbook.recipe import Bounded, Suite


def suite_scores(
    suite: Suite,
    leaves: Callable[[str], Sequence[str]],
    results: Mapping[tuple[str, str], tuple[float, int]],
) -> dict[str, float]:
    """Return the scores of a suite by name, from 0 to 100.

    Args:
        suite: The suite.
        leaves: Returns the tasks in a group; of a task, the task.
        results: By task and metric, the result and the number of documents.
    """
    return {
        name: sum(_normalized(part, leaves(part.task), results) for part in parts) / len(parts)
        for name, parts in suite.scores.items()
    }


def _normalized(
    part: Bounded, leaves: Sequence[str], results: Mapping[tuple[str, str], tuple[float, int]]
) -> float:
    """Return a result's place between the lowest that counts and the highest, in percent."""
    found = [results[leaf, part.metric] for leaf in leaves]
    weights = [documents if part.weigh == "documents" else 1 for _, documents in found]
    value = sum(value * weight for (value, _), weight in zip(found, weights, strict=True)) / sum(weights)
    return 100 * max(0.0, value - part.lowest) / (part.highest - part.lowest)
