"""Places in leaderboards: this model's own measured score, or that of its own row, among the rows of a locked snapshot.

Scores are compared as decimals, exactly as they are printed. Places follow competition ranking (1, 2, 2, 4): one more than
the number of rows that are strictly better. Neither a snapshot nor a place in it covers models that are not listed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from herdbook.errors import LockError, StepError
from herdbook.escape import Markdown, md
from herdbook.humanize import fixed, integer, joined, ordinal
from herdbook.steps.card.snapshot import filters, number, read_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Plan
    from herdbook.recipe import Leaderboard
    from herdbook.steps.card.results import Measurement, Score
    from herdbook.steps.card.snapshot import Snapshot

NORMAL = Decimal("1.96")  # standard errors to each side, in which a normal variable is with probability 0.95
NAMED_TIES = 8  # further ties are counted, not named
DIGEST_DIGITS = 8


@dataclass(frozen=True)
class Place:
    """A place among scores.

    Args:
        rank: One more than the number of strictly better rows.
        of: Number of rows that have a score, including this one.
        tied: Names of the rows with exactly this score, sorted.
        dropped: Number of rows without a score.
        worse: Number of strictly worse rows.
        above: Name and score of the nearest row that is strictly better; None if there is none.
        below: The same of the nearest one that is strictly worse.
    """

    rank: int
    of: int
    tied: tuple[str, ...]
    dropped: int
    worse: int = 0
    above: tuple[str, str] | None = None
    below: tuple[str, str] | None = None

    @property
    def share_of_worse(self) -> float:
        """Share of the other rows that are strictly worse."""
        return self.worse / (self.of - 1)


@dataclass(frozen=True)
class Ranked:
    """A place in one leaderboard, with its sentence on the card.

    Args:
        key: Name of the leaderboard in the recipe.
        board: The leaderboard.
        place: The place.
        score: The model's score.
        measured: Whether this build measured it; else it is that of the leaderboard's own row of this model.
        sentence: The sentence.
        sha256: Digest of the snapshot.
        within: The best and the worst place inside the score's 95 % interval; None if it has no standard error.
        left_out: How many rows the filters leave out.
        filters: The filters in words.
    """

    key: str
    board: Leaderboard
    place: Place
    score: Markdown
    measured: bool
    sentence: Markdown
    sha256: str
    within: tuple[int, int] | None
    left_out: int
    filters: str

    def allows(self, place: int) -> bool:
        """Return whether the model may have a place: it is inside the score's interval, or shared with tied rows."""
        first, last = self.within or (self.place.rank, self.place.rank)
        return first <= place <= max(last, self.place.rank + len(self.place.tied))


def find_place(
    score: Decimal, rows: Iterable[tuple[str, str]], direction: Literal["higher", "lower"]
) -> Place:
    """Return the place of a score among rows.

    Args:
        score: The score to place.
        rows: Name and score of each row, as text; the order does not matter.
        direction: Which scores are better.
    """
    scored = [(name, text.strip(), number(text.strip())) for name, text in rows]
    others = sorted((value, name, text) for name, text, value in scored if value is not None)
    lower = [(name, text) for value, name, text in others if value < score]
    higher = [(name, text) for value, name, text in reversed(others) if value > score]
    better, worse = (higher, lower) if direction == "higher" else (lower, higher)
    return Place(
        len(better) + 1,
        len(others) + 1,
        tuple(sorted(name for value, name, _ in others if value == score)),
        len(scored) - len(others),
        len(worse),
        better[-1] if better else None,
        worse[-1] if worse else None,
    )


def rank_all(plan: Plan, measurements: tuple[Measurement, ...]) -> tuple[Ranked, ...]:
    """Return the released model's place in each leaderboard of the recipe.

    Raises:
        LockError: If a snapshot is not the one that was locked.
        StepError: If a snapshot cannot be read or has no scores, or if its metric was not measured.
    """
    own = next((m for m in measurements if m.name == plan.released.name and m.method is None), None)
    return tuple(_rank(plan, key, board, own) for key, board in plan.recipe.leaderboards.items())


def _rank(plan: Plan, key: str, board: Leaderboard, own: Measurement | None) -> Ranked:
    where = f"leaderboards.{key}"
    measured = None if board.row else _own_score(where, board, own)
    path = plan.beside_recipe(board.snapshot)
    content = path.read_bytes() if path.is_file() else None
    sha256 = None if content is None else hashlib.sha256(content).hexdigest()
    pinned = plan.lock.leaderboards.get(key)
    if content is None or sha256 is None or pinned is None or pinned.sha256 != sha256:
        state = (
            "is missing"
            if content is None
            else "is not locked"
            if pinned is None
            else "has changed since it was locked"
        )
        raise LockError(f"{where}: {path} {state}. Restore it, or run `herdbook lock`.")
    snapshot = read_snapshot(content, board, where)
    value, shown = (
        (measured.value, Markdown(fixed(measured.value, measured.digits)))
        if measured
        else _row_score(where, board, snapshot)
    )
    place = find_place(value, snapshot.rows, board.direction)
    if place.of == 1:
        passing = f" among the rows of {filters(board)}" if snapshot.left_out else ""
        raise StepError(
            f"{where}.score_column: {board.snapshot} has no number in column {board.score_column!r}{passing}"
        )
    within = None
    if measured and measured.stderr is not None:
        margin = NORMAL * measured.stderr
        ends = (
            find_place(end, snapshot.rows, board.direction).rank for end in (value - margin, value + margin)
        )
        first, last = sorted(ends)
        within = first, last
    said = sentence(place, board, sha256)
    return Ranked(
        key, board, place, shown, bool(measured), said, sha256, within, snapshot.left_out, filters(board)
    )


def _row_score(where: str, board: Leaderboard, snapshot: Snapshot) -> tuple[Decimal, Markdown]:
    """Return the score of this model's own row, and as the card prints it."""
    text = snapshot.own[1].strip() if snapshot.own else ""
    value = number(text)
    if value is None:
        raise StepError(f"{where}.row: {board.snapshot} has no number in column {board.score_column!r} there")
    return value, md(text)


def _own_score(where: str, board: Leaderboard, own: Measurement | None) -> Score:
    assert board.task is not None and board.metric is not None  # noqa: S101, PT018 - so recipes are read
    if own is None:
        raise StepError(f"{where}: the released model was not measured")
    if board.task not in own.results:
        raise StepError(
            f"{where}.task: {board.task!r} was not measured; measured were {', '.join(own.results)}"
        )
    scores = own.results[board.task].scores
    if board.metric not in scores:
        raise StepError(f"{where}.metric: {board.task} has no {board.metric!r}; it has {'; '.join(scores)}")
    score = scores[board.metric]
    if score.higher_is_better != (board.direction == "higher"):
        raise StepError(
            f"{where}.direction: {board.direction!r} contradicts the metric: for {board.metric}, {score.direction}"
        )
    return score


def sentence(place: Place, board: Leaderboard, sha256: str) -> Markdown:
    """Return the sentence on a place: rank, ties, board, metric and snapshot."""
    tied = ""
    if place.tied:
        named = [md(name) for name in place.tied[:NAMED_TIES]]
        more = len(place.tied) - len(named)
        tied = f" (tied with {joined([*named, *([f'{more} more'] if more else [])])})"
    return Markdown(
        f"{ordinal(place.rank)}{'=' if place.tied else ''} of {integer(place.of)}{tied} on {md(board.title)} "
        f"by {md(board.by)}, snapshot of {md(board.as_of)}, sha256 {sha256[:DIGEST_DIGITS]}"
    )
