"""Results of groups as a whole: lm-eval's own, which follow from the results of their tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from herdbook.comparison.samples import label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from herdbook.lock import LockedTask

DOCUMENTS, TASKS = "documents", "tasks"  # over which a result is a mean
TOLERANCE = 2e-5  # of a result that follows from results of six significant digits


def derive(locked: LockedTask, name: str, tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a group as a whole, from the results of its tasks; no metrics if its definition names none.

    Args:
        locked: What the group is part of, pinned.
        name: The group.
        tasks: The results of tasks, as measurements state them.

    Source: ``lm_eval.api.group.Group.aggregate``, of version 0.4.13.
    """
    config, leaves = locked.groups[name].config, tuple(dict.fromkeys(locked.leaves(name)))
    metrics: dict[str, Any] = {}
    for entry in config.get("aggregate_metric_list") or []:
        metric, by_size = entry["metric"], bool(entry.get("weight_by_size", True))
        filters = entry.get("filter_list")
        given = {label(metric, filter_name) for filter_name in filters or ()}
        known = {one for leaf in leaves for one in tasks[leaf]["metrics"]}
        for one in sorted(given & known if filters else {one for one in known if _of(one, metric)}):
            having = [tasks[leaf] for leaf in leaves if one in tasks[leaf]["metrics"]]
            scores = [task["metrics"][one] for task in having]
            sizes = [int(task["documents"]) for task in having]
            metrics[one] = {
                "value": _mean([float(score["value"]) for score in scores], sizes if by_size else None),
                "stderr": _error([score["stderr"] for score in scores], sizes, by_size=by_size),
                "higher_is_better": bool(scores[0]["higher_is_better"]),
                "aggregation": DOCUMENTS if by_size else TASKS,
            }
    return {
        "title": str(config.get("group_alias") or name),
        "tasks": list(leaves),
        "documents": sum(int(tasks[leaf]["documents"]) for leaf in leaves),
        "metrics": metrics,
    }


def follows(stated: Mapping[str, Any], derived: Mapping[str, Any]) -> bool:
    """Return whether a stated result of a group is the derived one, but for the rounding of what that is derived from."""
    numbers = ("value", "stderr")
    exact, wanted = ({**result, "metrics": None} for result in (stated, derived))
    if exact != wanted or stated["metrics"].keys() != derived["metrics"].keys():
        return False
    for one, score in derived["metrics"].items():
        own = stated["metrics"][one]
        if {**own, **dict.fromkeys(numbers)} != {**score, **dict.fromkeys(numbers)}:
            return False
        for number in numbers:
            ours, theirs = score[number], own[number]
            if (ours is None) != (theirs is None):
                return False
            if ours is not None and not math.isclose(
                ours, float(theirs), rel_tol=TOLERANCE, abs_tol=TOLERANCE
            ):
                return False
    return True


def _of(one: str, metric: str) -> bool:
    return one.partition(",")[0] == metric


def _mean(values: Sequence[float], weights: Sequence[int] | None) -> float:
    given = weights or [1] * len(values)
    return sum(value * weight for value, weight in zip(values, given, strict=True)) / sum(given)


def _error(errors: Sequence[Any], sizes: Sequence[int], *, by_size: bool) -> float | None:
    """Return the standard error: pooled if documents have the same weight, that of a mean of independent means otherwise."""
    if any(error is None for error in errors):
        return None
    squares = [float(error) ** 2 for error in errors]
    if not by_size:
        return math.sqrt(sum(squares)) / len(squares)
    total = sum(sizes)
    if total == len(sizes):
        return None
    pooled = sum((size - 1) * square * size for size, square in zip(sizes, squares, strict=True))
    return math.sqrt(pooled / (total - len(sizes)) / total)
