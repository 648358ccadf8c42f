"""What searches over the released model and its ancestors found, as the card states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.recipe import Space, search_of

if TYPE_CHECKING:
    from herdbook.lock import LockedGain
    from herdbook.plan import Node, Plan


@dataclass(frozen=True)
class Found:
    """A place in a model's entry that was searched.

    Args:
        path: Where it is.
        start: Its value as the recipe has it.
        winner: That of the best trial.
    """

    path: str
    start: str
    winner: str


@dataclass(frozen=True)
class Tuned:
    """A search.

    Args:
        name: The model.
        metric: The metric by which trials were judged.
        higher_is_better: Of the metric.
        trials: How many there were, with the start.
        found: What was searched.
        validation: The winner's gain on the split by which it was chosen; None if no trial beat the start.
        test: Its gain on the split that no other trial was measured on.
        kept: Whether the model has the winner's numbers.
    """

    name: str
    metric: str
    higher_is_better: bool
    trials: int
    found: tuple[Found, ...]
    validation: LockedGain | None
    test: LockedGain | None
    kept: bool


def tuned_models(plan: Plan, nodes: tuple[Node, ...]) -> tuple[Tuned, ...]:
    """Return the searches over some models of a plan."""
    tuned = []
    for node in nodes:
        model = plan.recipe.models[node.name]
        search = search_of(model)
        result = plan.lock.tuned[node.name].result if search else None
        if search is None or result is None:
            continue
        space = Space(model, search)
        start, winner = space.values(space.start), space.values(result.trials[result.winner].point)
        found = tuple(Found(path, str(start[path]), str(winner[path])) for path in start)
        tuned.append(
            Tuned(
                name=node.name,
                metric=search.metric,
                higher_is_better=result.higher_is_better,
                trials=len(result.trials),
                found=found,
                validation=result.validation,
                test=result.test,
                kept=result.kept == "winner",
            )
        )
    return tuple(tuned)
