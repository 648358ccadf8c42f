"""What the author asserts, beside what this build found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.comparison.verdict import WORSE
from herdbook.errors import StepError
from herdbook.humanize import ordinal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan
    from herdbook.recipe.ranks import Claim
    from herdbook.steps.card.compared import Compared
    from herdbook.steps.card.rank import Ranked


@dataclass(frozen=True)
class Asserted:
    """A claim of the author.

    Args:
        claim: The claim.
        found: What this build found on it, in words; empty if it cannot check it.
        contradicted: Whether that contradicts it.
    """

    claim: Claim
    found: tuple[str, ...]
    contradicted: bool


def check_claims(
    plan: Plan, ranks: tuple[Ranked, ...], compared: tuple[Compared, ...]
) -> tuple[Asserted, ...]:
    """Return the claims with what was found on them.

    A place is contradicted if it is outside the places inside the score's interval, an improvement if the model is
    measurably worse.

    Raises:
        StepError: If one is contradicted and does not say in words why it stays, or is on a task that was not compared.
    """
    checked, problems = [], []
    for index, claim in enumerate(plan.recipe.claims):
        findings = [*_rank(claim, ranks), *_better(claim, compared, plan.released.name, index)]
        contradicted = any(wrong for _, wrong in findings)
        checked.append(Asserted(claim, tuple(words for words, _ in findings), contradicted))
        if contradicted and not claim.waived:
            against = "; ".join(words for words, wrong in findings if wrong)
            problems.append(
                f"claims.{index}: the evidence contradicts {claim.text!r}: {against}. Correct it, or give the reason in `waived` why it stays"
            )
    if problems:
        raise StepError("\n".join(problems))
    return tuple(checked)


def _rank(claim: Claim, ranks: tuple[Ranked, ...]) -> Iterator[tuple[str, bool]]:
    if claim.rank is None:
        return
    ranked = next(item for item in ranks if item.key == claim.rank.leaderboard)
    place = f"it is {ordinal(ranked.place.rank)} of {ranked.place.of} on {ranked.board.title}"
    if ranked.within:
        place += f", {ranked.within[0]} to {ranked.within[1]} inside the score's interval"
    yield place, not ranked.allows(claim.rank.place)


def _better(
    claim: Claim, compared: tuple[Compared, ...], released: str, index: int
) -> Iterator[tuple[str, bool]]:
    if claim.better is None:
        return
    pair = (released, claim.better.than)
    of_pair = [item.comparison for item in compared if (item.comparison.model, item.comparison.other) == pair]
    found = [item for item in of_pair if item.task == claim.better.task]
    if not found:
        tasks = ", ".join(dict.fromkeys(item.task for item in of_pair))
        raise StepError(
            f"claims.{index}.better.task: {claim.better.task!r} was not compared; compared were {tasks}"
        )
    for item in found:
        metric = f" ({item.metric})" if len(found) > 1 else ""
        yield f"compared with {item.other} in {item.task}{metric}: {item.verdict}", item.verdict == WORSE
