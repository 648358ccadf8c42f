"""The rank rules that the matrices of a part may be reduced by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.plan.operation import Reduce, ReduceAsSearched

if TYPE_CHECKING:
    from herdbook.plan import Part, Plan
    from herdbook.recipe import RankRule


def rank_rules(plan: Plan, part: Part) -> tuple[RankRule, ...]:
    """Return a part's rank rules: the recipe's, or all that the search tries; none if nothing is reduced."""
    match part.operation:
        case Reduce() as reduce:
            return (reduce.rank,)
        case ReduceAsSearched() as reduce:
            return plan.searches[reduce.search].ranks
        case _:
            return ()
