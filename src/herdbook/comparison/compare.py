"""The comparisons of a build: a paired difference for each pair of models and task, and a verdict in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from herdbook.comparison.paired import ALPHA, FLIPS, RESAMPLES, SEED, holm, paired
from herdbook.comparison.samples import MEAN, RATIO, SamplesError, check_value, terms, unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from herdbook.comparison.samples import Sample

BETTER, WORSE, SAME = "better", "worse", "no measurable difference"
UNTESTED = "not tested: the metric is not a mean over documents"
DIGITS = 6  # significant digits of what is written


@dataclass(frozen=True)
class Wanted:
    """A comparison to make: one model with another, in one metric of a task."""

    model: str
    other: str
    task: str
    metric: str


@dataclass(frozen=True)
class Comparison:
    """A comparison.

    Args:
        model: The model.
        other: The model that it is compared with.
        task: The task.
        metric: The metric.
        documents: Number of documents.
        verdict: What the corrected test says of the model: better, worse, no measurable difference; or that there is no test.
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


@dataclass(frozen=True)
class Measured:
    """What one model was measured to be: the metrics of each task as its measurement states them, and the samples."""

    tasks: Mapping[str, Any]
    samples: Mapping[str, Sequence[Sample]]


def compare(wanted: Sequence[Wanted], measured: Mapping[str, Measured]) -> tuple[Comparison, ...]:
    """Make comparisons, and correct them for their number.

    Args:
        wanted: The comparisons.
        measured: Each model, by name.

    Raises:
        SamplesError: If two models were measured on other documents, or a measurement does not follow from its samples.
    """
    made = [_compare(item, measured[item.model], measured[item.other]) for item in wanted]
    higher = [
        bool(measured[item.model].tasks[item.task]["metrics"][item.metric]["higher_is_better"])
        for item in wanted
    ]
    return judge(made, higher)


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
        p = _rounded(next(corrected))
        ahead = (item.difference > 0) == higher
        verdict = SAME if p > ALPHA or not item.difference else BETTER if ahead else WORSE
        judged.append(replace(item, verdict=verdict, corrected=p))
    return tuple(judged)


def too_few(comparisons: Sequence[Comparison]) -> bool:
    """Return whether some comparison has so few documents that it cannot show any difference, among so many."""
    tests = sum(item.p is not None for item in comparisons)
    return any(item.least_p is not None and item.least_p * tests > ALPHA for item in comparisons)


def _compare(item: Wanted, ours: Measured, theirs: Measured) -> Comparison:
    sides = ours.samples.get(item.task, ()), theirs.samples.get(item.task, ())
    places = [[(sample.document, sample.sha256) for sample in side] for side in sides]
    if places[0] != places[1] or not places[0]:
        raise SamplesError(
            f"{item.model} and {item.other} were not measured on the same documents of {item.task}"
        )
    entries = [side.tasks[item.task]["metrics"][item.metric] for side in (ours, theirs)]
    aggregation = entries[0]["aggregation"]
    comparison = Comparison(item.model, item.other, item.task, item.metric, len(set(places[0])), UNTESTED)
    if aggregation not in {MEAN, RATIO}:
        return comparison
    parts = []
    for name, side, entry in zip((item.model, item.other), sides, entries, strict=True):
        found = terms(side, item.metric, aggregation)
        check_value(
            found, aggregation, Decimal(str(entry["value"])), f"{item.metric} of {name} in {item.task}"
        )
        parts.append(found)
    sizes = [size for _, size in parts[0]]
    if sizes != [size for _, size in parts[1]]:
        raise SamplesError(
            f"{item.model} and {item.other} count the lengths of documents of {item.task} differently"
        )
    result = paired([a - b for (a, _), (b, _) in zip(*parts, strict=True)], sizes)
    factor = unit(aggregation)
    return replace(
        comparison,
        difference=_rounded(result.difference * factor),
        low=_rounded(result.low * factor),
        high=_rounded(result.high * factor),
        p=_rounded(result.p),
        least_p=_rounded(result.least_p),
        test=result.test,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def as_json(comparisons: Iterable[Comparison]) -> dict[str, Any]:
    """Return comparisons as they are released."""
    return {
        "operation": "compare",
        "method": {
            "test": "sign flips of paired differences, two-sided",
            "interval": "paired bootstrap, 95 %, percentiles",
            "correction": "Holm",
            "level": ALPHA,
            "seed": SEED,
            "flips": FLIPS,
            "resamples": RESAMPLES,
        },
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }


def from_json(content: Any) -> tuple[Comparison, ...]:
    """Return comparisons from what ``as_json`` returned. Raises LookupError or TypeError if it is damaged."""
    return tuple(Comparison(**entry) for entry in content["comparisons"])
