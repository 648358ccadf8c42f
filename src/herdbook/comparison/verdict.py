"""The result of a comparison: a paired difference, how probable it is among equal models, and a verdict in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA = 0.05  # probability of calling any difference measurable, over all tests together, where there is none
BETTER, WORSE, SAME = "better", "worse", "no measurable difference"
UNTESTED = "not tested: the metric is not a mean over documents"
DIGITS = 6  # significant digits of what is written


@dataclass(frozen=True)
class Comparison:
    """A comparison.

    Args:
        model: The model.
        other: The model that it is compared with.
        task: The task.
        metric: The metric.
        documents: Number of documents.
        verdict: The corrected test's result for the model: better, worse, no measurable difference; or that no test exists.
        difference: The model's result minus the other's; None without a test, as all that follows.
        low: Lower end of the difference's 95 % interval.
        high: Upper end of it.
        p: Probability of so large a difference between equal models.
        corrected: The same, corrected for the number of comparisons.
        test: How the probability was computed.
        least_p: The smallest probability that so many documents can give.
    """

    model: str
    other: str
    task: str
    metric: str
    documents: int
    verdict: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None
    test: str | None = None
    least_p: float | None = None


def judge(comparisons: Sequence[Comparison], higher_is_better: Sequence[bool]) -> tuple[Comparison, ...]:
    """Return comparisons with their probabilities corrected for their number, and the verdicts that follow.

    Args:
        comparisons: The comparisons, with their differences and probabilities.
        higher_is_better: For each, whether higher results are better.
    """
    corrected = iter(holm([item.p for item in comparisons if item.p is not None]))
    judged = []
    for item, higher in zip(comparisons, higher_is_better, strict=True):
        if item.p is None or item.difference is None:
            judged.append(replace(item, verdict=UNTESTED, corrected=None))
            continue
        p = rounded(next(corrected))
        ahead = (item.difference > 0) == higher
        verdict = SAME if p > ALPHA or not item.difference else BETTER if ahead else WORSE
        judged.append(replace(item, verdict=verdict, corrected=p))
    return tuple(judged)


def too_few(comparisons: Sequence[Comparison]) -> bool:
    """Return whether some comparison has so few documents that it cannot show any difference, among so many."""
    tests = sum(item.p is not None for item in comparisons)
    return any(item.least_p is not None and item.least_p * tests > ALPHA for item in comparisons)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return probabilities corrected for their number: any one below a level is then so by chance no more often than that.

    Source: Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure.
    """
    count = len(probabilities)
    order = sorted(range(count), key=lambda index: probabilities[index])
    corrected, largest = [0.0] * count, 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (count - place) * probabilities[index]))
        corrected[index] = largest
    return corrected


def rounded(value: float) -> float:
    """Return a number with ``DIGITS`` significant digits."""
    return float(f"{value:.{DIGITS}g}")


def from_json(content: Any) -> tuple[Comparison, ...]:
    """Return comparisons from what ``as_json`` returned. Raises LookupError or TypeError if it is damaged."""
    return tuple(Comparison(**entry) for entry in content["comparisons"])
