"""What the result of a search must contain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import SEARCHES
from herdbook.plan.laser import SEARCH_CODE
from herdbook.release.reader import damaged
from herdbook.verify.results.expected import DEVICE, Expected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from herdbook.plan import Search
    from herdbook.release.reader import Release


def searched(release: Release, search: Search) -> Expected:
    """Return what the result of a search must contain."""
    name = f"{SEARCHES}/{search.id}.json"
    found = release.subject.json(name)
    spread = [rule for rule in search.ranks if rule.spreads is not None]
    free = {"chosen", DEVICE}
    if spread:
        free |= {"budgets"}
    if search.select:
        free |= {"ranking"}
    if search.guard:
        free |= {"trials", "start", "end", "difference", "confirmation"}
    with damaged(name):
        ranked = [entry["tensor"] for entry in found["ranking"]] if search.select else list(search.matrices)
        tried = ranked[: search.select.count] if search.select else ranked
        stated = [
            *found["chosen"].items(),
            *((trial["tensor"], trial["rule"]) for trial in found.get("trials", [])),
        ]
        ranks = [entry["ranks"] for entry in found["budgets"]] if spread else []
        possible = [
            (matrix, rule)
            for matrix, rule in stated
            if matrix in tried and rule in _rules(search, matrix, ranks)
        ]
    within = [(sorted(search.matrices), sorted(ranked)), (possible, stated)]
    return Expected(name, SEARCH_CODE, dict(search.about), frozenset(free), within)


def _rules(search: Search, matrix: str, spread: Sequence[Mapping[str, int]]) -> list[Any]:
    """Return the rules of a matrix; of budgets, with the ranks that each was spread into."""
    given = iter(spread)
    return [
        (rule if rule.spreads is None else rule.at(next(given)[matrix])).canonical for rule in search.ranks
    ]
