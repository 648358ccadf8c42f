"""What was measured, as the page of a release shows it: values, paired differences, single documents, routers, losses of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.comparison.marks import results_of
from herdbook.comparison.samples import MEAN, RATIO, terms, unit, unpack
from herdbook.figures.losses import FilePoint, draw_losses
from herdbook.layout import COMPARISONS, EVALUATIONS, LOSSES, ROUTING, SAMPLES_SUFFIX

if TYPE_CHECKING:
    from herdbook.comparison.samples import Sample
    from herdbook.release.reader import Release

MAX_DOCUMENTS = 25  # of a comparison, those that differ most
MAX_SAMPLES_BYTES = 64_000_000


def measurements(release: Release) -> dict[str, Any] | None:
    """Return the columns and rows of the table of measurements; None if nothing was measured."""
    names = sorted(
        name for name in release.sums if name.startswith(f"{EVALUATIONS}/") and name.endswith(".json")
    )
    rows: dict[str, dict[tuple[str, str], Any]] = {}
    columns = {}
    for name in names:
        content = release.subject.json(name)
        cells = rows.setdefault(str(content.get("name") or name), {})
        for task, result in results_of(content).items():
            for metric, score in result["metrics"].items():
                columns[task, metric] = f"{result.get('title') or task}: {metric}"
                cells[task, metric] = {
                    "value": float(score["value"]),
                    "stderr": None if score["stderr"] is None else float(score["stderr"]),
                }
    if not rows:
        return None
    return {
        "columns": list(columns.values()),
        "rows": [(name, [cells.get(column) for column in columns]) for name, cells in rows.items()],
    }


def comparisons(release: Release) -> list[dict[str, Any]]:
    """Return the paired comparisons."""
    if COMPARISONS not in release.sums:
        return []
    return list(release.subject.json(COMPARISONS)["comparisons"])


def documents(release: Release) -> list[dict[str, Any]]:
    """Return for each comparison the documents that differ most, if the release has what was measured of each document.

    Texts and answers are in no release, only their numbers and digests.
    """
    sides: dict[str, tuple[dict[str, Any], dict[str, list[Sample]]]] = {}
    for name in sorted(release.sums):
        if not name.startswith(f"{EVALUATIONS}/") or not name.endswith(SAMPLES_SUFFIX):
            continue
        content = release.subject.json(f"{name.removesuffix(SAMPLES_SUFFIX)}.json")
        samples = unpack(release.subject.read(name, MAX_SAMPLES_BYTES), content["samples"]["sha256"])
        tasks, known = sides.setdefault(str(content["name"]), ({}, {}))
        tasks.update(content["tasks"])
        known.update(samples)
    found = []
    for item in comparisons(release):
        pair, task = (item["model"], item["other"]), item["task"]
        if not all(name in sides and task in sides[name][1] for name in pair):
            continue
        aggregation = sides[pair[0]][0][task]["metrics"][item["metric"]]["aggregation"]
        if aggregation in {MEAN, RATIO}:
            rows = _documents([sides[name][1][task] for name in pair], item["metric"], aggregation)
            found.append({**item, "rows": rows[:MAX_DOCUMENTS], "more": max(0, len(rows) - MAX_DOCUMENTS)})
    return found


def _documents(sides: list[list[Sample]], metric: str, aggregation: str) -> list[dict[str, Any]]:
    """Return the documents of two measurements, those first that differ most."""
    values = [
        [float(value) / size * unit(aggregation) for value, size in terms(side, metric, aggregation)]
        for side in sides
    ]
    rows = [
        {"number": sample.document, "sha256": sample.sha256, "own": own, "other": other}
        for sample, own, other in zip(sides[0], *values, strict=True)
    ]
    return sorted(rows, key=lambda row: (-abs(row["own"] - row["other"]), row["number"]))


def routing(release: Release) -> list[dict[str, Any]]:
    """Return what the routers chose: for each kind of text, the experts and their shares layer by layer."""
    names = sorted(name for name in release.sums if name.startswith(f"{ROUTING}/"))
    reports = [release.subject.json(name) for name in names]
    return [
        {
            "text": text,
            "experts": [f"{place}: {model}" for place, model in enumerate(report["experts"], start=1)],
            "layers": [[float(share) for share in layer[text]["share"]] for layer in report["layers"]],
        }
        for report in reports
        for text in report["texts"]
    ]


def losses(release: Release) -> str | None:
    """Return a picture of the sizes and losses of the quantized files; None if none was measured."""
    points = []
    for item in release.plan().losses:
        content = release.subject.json(f"{LOSSES}/{item.id}.json")
        loss, bits = content["total"]["kl_divergence"], float(content["bits_per_weight"])
        points.append(FilePoint(item.label, bits, float(loss["value"]), float(loss["stderr"]), not item.repo))
    return draw_losses(points, "Size of the files against their loss") if points else None
