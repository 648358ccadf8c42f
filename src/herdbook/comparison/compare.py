"""Making the comparisons of a build: a paired difference for each pair of models and task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from herdbook.comparison.paired import FLIPS, RESAMPLES, SEED, paired
from herdbook.comparison.samples import MEAN, RATIO, SamplesError, check_value, terms, unit
from herdbook.comparison.verdict import ALPHA, UNTESTED, Comparison, judge, rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from herdbook.comparison.samples import Sample


@dataclass(frozen=True)
class Wanted:
    """A comparison to make: one model with another, in one metric of a task."""

    model: str
    other: str
    task: str
    metric: str


@dataclass(frozen=True)
class Measured:
    """What one model was measured to be: the metrics of each task as its measurement states them, and the samples."""

    tasks: Mapping[str, Any]
    samples: Mapping[str, Sequence[Sample]]


def check_measured(name: str, measured: Measured) -> None:
    """Check that what a measurement states follows from its samples, in all metrics that are means over documents.

    Raises:
        SamplesError: If a value does not follow, or documents are missing.
    """
    for task, result in measured.tasks.items():
        samples = measured.samples.get(task, ())
        if len({sample.document for sample in samples}) != result["documents"]:
            raise SamplesError(
                f"has {len(samples)} documents of {task}, and {result['documents']} were measured"
            )
        for metric, entry in result["metrics"].items():
            if (aggregation := entry["aggregation"]) in {MEAN, RATIO}:
                what = f"{metric} of {name} in {task}"
                check_value(
                    terms(samples, metric, aggregation), aggregation, Decimal(str(entry["value"])), what
                )


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
        difference=rounded(result.difference * factor),
        low=rounded(result.low * factor),
        high=rounded(result.high * factor),
        p=rounded(result.p),
        least_p=rounded(result.least_p),
        test=result.test,
    )


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
