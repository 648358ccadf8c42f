"""Measurements with made-up results of documents, as if ``evaluate`` had written them."""

import math

from herdbook.comparison.samples import Sample, pack
from herdbook.files import atomic_writer, write_json
from herdbook.weights.record import read_record


def write(
    plan,
    item,
    by_document,
    *,
    metric="bits_per_byte",
    task="held_out",
    stderr=0.0123,
    length=100,
    weights=None,
    also=(),
    first=0,
):
    """Write a measurement of one task.

    Args:
        plan: The plan.
        item: The measurement.
        by_document: The result of each document, in the metric; all have the same length.
        metric: The metric: bits per byte, or a mean of higher values that are better.
        task: The task.
        stderr: The standard error that it states.
        length: The length of each document in bytes.
        weights: SHA-256 of each measured file, by its name.
        also: Further tasks with the same results.
        first: The digest of the first document, as a number.
    """
    ratio = metric == "bits_per_byte"
    value = float(f"{math.fsum(by_document) / len(by_document):.6g}")
    samples = [
        Sample(
            name,
            number,
            f"{first + number:x}",
            {metric: [-own * length * math.log(2), length] if ratio else own},
        )
        for name in (task, *also)
        for number, own in enumerate(by_document)
    ]
    entry = {
        "value": value,
        "stderr": stderr,
        "higher_is_better": not ratio,
        "aggregation": "bits_per_byte" if ratio else "mean",
    }
    content, sha256 = pack(samples)
    with atomic_writer(plan.layout.samples(item)) as file:
        file.write(content)
    titles = {name: title for one in plan.lock.tasks.values() for name, title in one.titles.items()}
    results = {
        name: {
            "title": titles[name],
            "documents": len(by_document),
            "requests": "0" * 64,
            "metrics": {metric: entry},
        }
        for name in (task, *also)
    }
    write_json(
        plan.layout.evaluation(item),
        {
            **item.about,
            "weights": _weights(plan, item) if weights is None else weights,
            "tasks": results,
            "samples": {"sha256": sha256},
        },
    )


def _weights(plan, item):
    if item.quantized:
        return {
            item.quantized.file: read_record(plan.layout.quantized_record(item.quantized))["file"]["sha256"]
        }
    records = [read_record(plan.layout.record(part))["file"]["sha256"] for part in item.node.parts]
    return dict(zip(item.node.shard_names, records, strict=True))
