"""What a search found, as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.humanize import plural
from herdbook.recipe import Space, search_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import LockedGain, LockedResult
    from herdbook.recipe import Section


def lines(name: str, model: Section, result: LockedResult) -> Iterator[str]:
    """Yield what a search found: the winner, its gain on both splits, and what is kept.

    Args:
        name: The model.
        model: Its entry.
        result: What was found.
    """
    search = search_of(model)
    assert search is not None  # noqa: S101 - the caller's choice
    yield f"{name}: {plural(len(result.trials), 'trial')}; {search.metric} of the start {result.trials[0].score:g}"
    if result.validation is None or result.test is None:
        yield "  no trial is better than the start on the validation split: the start is kept"
        return
    space, winner = Space(model, search), result.trials[result.winner]
    better = "higher" if result.higher_is_better else "lower"
    yield f"  winner: trial {result.winner}, {search.metric} {winner.score:g} ({better} is better)"
    for path, value in space.values(winner.point).items():
        yield f"    {path}: {value}"
    yield f"  difference on the validation split, by which it was chosen: {gain_text(result.validation)}"
    yield f"  difference on the test split: {gain_text(result.test)}"
    yield (
        "  the winner is kept"
        if result.kept == "winner"
        else "  the test split shows no gain: the start is kept"
    )


def gain_text(gain: LockedGain) -> str:
    """Return a gain with its interval and probability."""
    return (
        f"{gain.difference:+.3g} (95 % from {gain.low:+.3g} to {gain.high:+.3g}, p = {gain.p:.2g}, "
        f"{plural(gain.documents, 'document')})"
    )
