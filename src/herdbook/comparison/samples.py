"""What was measured document by document: lines of JSON, compressed, whose digest stands in the measurement.

Texts are not kept, only their digests, by which two measurements are known to be of the same documents. The digest is that
of the lines; the compression is bzip2, of which there is one implementation, whose bytes are the same everywhere.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from herdbook import limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NO_FILTER = "none"  # lm-eval's name for it
DIGITS = 9  # significant digits of a number: enough to distinguish any two float32 numbers
MEAN = "mean"
RATIO = "bits_per_byte"  # of sums: of log-likelihoods in nats, and of lengths in bytes
TOLERANCE = Decimal("1e-5")  # relative; a measurement has six digits


class SamplesError(ValueError):
    """Samples are damaged, or not those of the measurement; the message is to follow the file's name."""


@dataclass(frozen=True)
class Sample:
    """The results of one document.

    Args:
        task: The task.
        document: Its number in the task's data.
        sha256: Digest of the document.
        values: By label of the metric: a number, a pair of numbers, or what else lm-eval has.
    """

    task: str
    document: int
    sha256: str
    values: Mapping[str, Any]


def label(metric: str, filter_name: str) -> str:
    """Return the name of a metric of one filter, as lm-eval writes it; without a filter, that of the metric.

    A filter is what takes the answer out of a generated text; a task with several has each metric several times.
    """
    return metric if filter_name == NO_FILTER else f"{metric},{filter_name}"


def of_results(task: str, samples: Iterable[Mapping[str, Any]], metrics: Iterable[str]) -> list[Sample]:
    """Return the samples of a task from lm-eval's, which has one for each document and filter, in the order of its documents.

    Args:
        task: The task.
        samples: lm-eval's samples.
        metrics: The labels of the metrics.
    """
    wanted = set(metrics)
    values: dict[int, dict[str, Any]] = {}
    digests: dict[int, str] = {}
    for sample in samples:
        document = int(sample["doc_id"])
        digests[document] = str(sample.get("doc_hash", ""))
        own = {label(name, sample["filter"]): sample[name] for name in sample["metrics"] if name in sample}
        values.setdefault(document, {}).update(
            {name: _plain(value) for name, value in own.items() if name in wanted}
        )
    return [Sample(task, document, digests[document], values[document]) for document in sorted(values)]


def pack(samples: Iterable[Sample]) -> tuple[bytes, str]:
    """Return samples as the content of their file, and the SHA-256 of its lines."""
    lines = "".join(
        json.dumps(
            {
                "task": sample.task,
                "document": sample.document,
                "sha256": sample.sha256,
                "metrics": dict(sample.values),
            },
            sort_keys=True,
            ensure_ascii=False,
        )
        + "\n"
        for sample in samples
    ).encode()
    return bz2.compress(lines), hashlib.sha256(lines).hexdigest()


def unpack(content: bytes, sha256: str) -> dict[str, list[Sample]]:
    """Return samples by task.

    Args:
        content: The content of their file.
        sha256: Digest of its lines, as the measurement states it.

    Raises:
        SamplesError: If they are damaged, too many, or others.
    """
    limit = limits.SAMPLES
    reader = bz2.BZ2Decompressor()
    try:
        lines = reader.decompress(content, limit.size_bytes + 1)
        limit.check(lines)
    except limits.OverLimitError as error:
        raise SamplesError(f"is refused: it {error}") from error
    except (OSError, ValueError) as error:
        raise SamplesError(f"is not a file of bzip2: {error}") from error
    if not reader.eof or reader.unused_data:
        raise SamplesError("is cut off, or continued by something else")
    if (found := hashlib.sha256(lines).hexdigest()) != sha256:
        raise SamplesError(f"has other samples than were measured: their SHA-256 is {found}, not {sha256}")
    tasks: dict[str, list[Sample]] = {}
    try:
        for line in lines.decode().splitlines():
            entry = json.loads(line, parse_float=Decimal, parse_constant=_refuse)
            sample = Sample(
                entry["task"], int(entry["document"]), str(entry["sha256"]), dict(entry["metrics"])
            )
            tasks.setdefault(sample.task, []).append(sample)
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise SamplesError(f"is damaged: {error!r}") from error
    return tasks


def terms(samples: Iterable[Sample], metric: str, aggregation: str) -> list[tuple[Decimal, int]]:
    """Return each document's part of a metric: its value and its weight, whose sums make the metric.

    Args:
        samples: The samples of one task.
        metric: The metric.
        aggregation: ``MEAN`` or ``RATIO``.

    Raises:
        SamplesError: If a document has no such value.
    """
    try:
        if aggregation == MEAN:
            return [(Decimal(sample.values[metric]), 1) for sample in samples]
        pairs = [sample.values[metric] for sample in samples]
        return [(-Decimal(nats), int(length)) for nats, length in pairs]
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise SamplesError(f"has a document without a value of {metric}: {error!r}") from error


def unit(aggregation: str) -> float:
    """Return the factor from a ratio of sums of terms to the metric: nats become bits."""
    return 1 / math.log(2) if aggregation == RATIO else 1.0


def check_value(parts: list[tuple[Decimal, int]], aggregation: str, value: Decimal, what: str) -> None:
    """Raise SamplesError if a metric does not follow from its terms."""
    weight = sum(size for _, size in parts)
    total = sum((part for part, _ in parts), Decimal(0))
    if not weight:
        raise SamplesError(f"has no document with a weight for {what}")
    found = total / weight * Decimal(unit(aggregation))
    if abs(found - value) > TOLERANCE * max(abs(found), abs(value)):
        raise SamplesError(f"gives {found:.6g} as {what}, and the measurement states {value}")


def _plain(value: Any) -> Any:
    """Return a value of lm-eval as JSON, with ``DIGITS`` digits."""
    if isinstance(value, bool | str | int | None):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(number):
        return str(number)
    return int(number) if number.is_integer() and abs(number) < 1e15 else float(f"{number:.{DIGITS}g}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")
