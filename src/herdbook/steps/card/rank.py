"""Places in leaderboards: this model's own measured score among the rows of a locked snapshot.

Scores are compared as decimals, exactly as they are printed. Places follow competition ranking (1, 2, 2, 4): one more than
the number of rows that are strictly better. Neither a snapshot nor a place in it covers models that are not listed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from herdbook.errors import LockError, StepError
from herdbook.escape import Markdown, md
from herdbook.humanize import integer, joined, ordinal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Plan
    from herdbook.recipe import Leaderboard
    from herdbook.steps.card.results import Measurement, Score

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?|[+-]?\.[0-9]+")
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
    """

    rank: int
    of: int
    tied: tuple[str, ...]
    dropped: int


@dataclass(frozen=True)
class Ranked:
    """A place in one leaderboard, with its sentence on the card."""

    key: str
    board: Leaderboard
    place: Place
    score: Score
    sentence: Markdown
    sha256: str


def find_place(
    score: Decimal, rows: Iterable[tuple[str, str]], direction: Literal["higher", "lower"]
) -> Place:
    """Return the place of a score among rows.

    Args:
        score: The score to place.
        rows: Name and score of each row, as text; the order does not matter.
        direction: Which scores are better.
    """
    better = of = dropped = 0
    tied: list[str] = []
    for name, text in rows:
        if not NUMBER.fullmatch(text.strip()):
            dropped += 1
            continue
        other = Decimal(text.strip())
        of += 1
        if other == score:
            tied.append(name)
        elif (other > score) == (direction == "higher"):
            better += 1
    return Place(better + 1, of + 1, tuple(sorted(tied)), dropped)


def read_snapshot(content: bytes, board: Leaderboard, where: str) -> list[tuple[str, str]]:
    """Return the name and the score of each row of a snapshot, as text.

    Raises:
        StepError: If it is not CSV in UTF-8, or does not have exactly one column of each name.
    """
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise StepError(f"{where}: {board.snapshot}: is not CSV in UTF-8: {error}") from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    columns = []
    for key, column in (("model_column", board.model_column), ("score_column", board.score_column)):
        if header.count(column) != 1:
            raise StepError(
                f"{where}.{key}: {board.snapshot} has {header.count(column)} columns named {column!r}; "
                f"its columns are {', '.join(header) or 'none'}"
            )
        columns.append(header.index(column))
    model, score = columns
    cells = [
        [*line, *([""] * (len(header) - len(line)))]
        for line in lines[1:]
        if any(cell.strip() for cell in line)
    ]
    return [(line[model].strip() or "unnamed", line[score]) for line in cells]


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
    score = _own_score(where, board, own)
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
    place = find_place(score.value, read_snapshot(content, board, where), board.direction)
    if place.of == 1:
        raise StepError(
            f"{where}.score_column: {board.snapshot} has no number in column {board.score_column!r}"
        )
    return Ranked(key, board, place, score, sentence(place, board, sha256), sha256)


def _own_score(where: str, board: Leaderboard, own: Measurement | None) -> Score:
    if own is None:
        raise StepError(f"{where}: the released model was not measured")
    if board.task not in own.tasks:
        raise StepError(
            f"{where}.task: {board.task!r} was not measured; measured were {', '.join(own.tasks)}"
        )
    scores = own.tasks[board.task].scores
    if board.metric not in scores:
        raise StepError(f"{where}.metric: {board.task} has no {board.metric!r}; it has {', '.join(scores)}")
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
        f"by {md(board.metric)}, snapshot of {md(board.as_of)}, sha256 {sha256[:DIGEST_DIGITS]}"
    )
