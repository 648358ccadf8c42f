"""Where everything of a release comes from, as its page shows it: sources, models, each tensor, and spectra of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import RECORDS
from herdbook.plan.material import ancestry, materials
from herdbook.recipe.rank import rank_rule
from herdbook.sources import purl
from herdbook.verify.page.inside import inside_script
from herdbook.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.provenance.lineage import Derived, Equals, LineageSlice, TracedTensor
    from herdbook.release.reader import Release

MAX_SLICES = 20_000  # whose lineage is in the page
MAX_SPECTRA = 2_000


def about(release: Release) -> dict[str, Any]:
    """Return what the model is, for the head of the page."""
    plan = release.plan()
    return {
        "parameters": plan.released.parameters,
        "license": plan.recipe.release.license,
        "sources": list(dict.fromkeys(material.name for material in materials(plan, ancestry(plan)))),
    }


def models(release: Release) -> list[dict[str, Any]]:
    """Return the models, parents first."""
    return [
        {
            "name": node.name,
            "operation": node.operation,
            "parents": list(dict.fromkeys(node.parents)),
            "key": node.key,
            "files": len(node.parts),
        }
        for node in ancestry(release.plan())
    ]


def graph(release: Release) -> str:
    """Return the models as the script draws them, with what a click on one shows, as text that cannot end its element."""
    plan, records = release.plan(), release.records()
    sources = {material.node: material for material in materials(plan, ancestry(plan))}
    nodes = []
    for node in ancestry(plan):
        details = [("made by", node.operation), ("key", node.key)]
        if source := sources.get(node.name):
            details += [("from", source.uri), ("pinned to", source.revision or "")]
            details += [("license", source.license or "not stated")]
        for part in node.parts:
            digest = str(records[part.key]["file"]["sha256"]) if part.key in records else "no record"
            details.append((f"{RECORDS}/{part.id}.json", digest))
        nodes.append(
            {
                "name": visible(node.name),
                "by": node.operation,
                "of": [visible(parent) for parent in dict.fromkeys(node.parents)],
                "details": [[visible(label), visible(value)] for label, value in details if value],
            }
        )
    return inside_script(nodes)


def sources(release: Release) -> list[dict[str, Any]]:
    """Return the sources with their files."""
    plan = release.plan()
    found = []
    for material in materials(plan, ancestry(plan)):
        commit = purl.parse(material.uri)
        found.append(
            {
                "name": material.name,
                "uri": material.uri,
                "page": f"{commit.endpoint}/{commit.repo}/tree/{commit.commit}"
                if commit and commit.endpoint == purl.PUBLIC_HUB
                else None,
                "license": material.license or "not stated",
                "files": [
                    {"name": file.name, "size": file.size_bytes, "digest": file.sha256 or file.git_blob or ""}
                    for file in material.files
                ],
            }
        )
    return found


def slices_of(release: Release) -> dict[str, Any]:
    """Return the lineage as the script reads it, as text that cannot end its element."""
    slices = release.lineage()
    return {
        "left_out": max(0, len(slices) - MAX_SLICES),
        "count": len(slices),
        "json": inside_script([_slice(slice_) for slice_ in slices[:MAX_SLICES]]),
    }


def spectra(release: Release) -> str | None:
    """Return the spectra of the lasered matrices as the script draws them; None if there are none."""
    plan, records = release.plan(), release.records()
    found = []
    for node in ancestry(plan):
        for part in node.parts:
            for name, entry in records[part.key]["tensors"].items() if part.key in records else ():
                if entry.get("action") == "laser" and "spectrum" in entry:
                    found.append(_spectrum(node.name, name, entry))
    return inside_script(found[:MAX_SPECTRA]) if found else None


def _spectrum(model: str, name: str, entry: Any) -> dict[str, Any]:
    points = [float(value) for value in entry["spectrum"]["points"]]
    count, last = min(int(extent) for extent in entry["shape"]), max(1, len(points) - 1)
    cuts = {rule: int(cut["rank"]) for rule, cut in entry["spectrum"]["thresholds"].items()}
    return {
        "model": visible(model),
        "name": visible(name),
        "count": count,
        "points": [[1 + round(place * (count - 1) / last), value] for place, value in enumerate(points)],
        "rank": int(entry["rank"]),
        "rule": visible(rank_rule(entry["rule"]).label),
        "energy": float(entry["energy"]),
        "change": float(entry["change"]),
        "cuts": {visible(rule): rank for rule, rank in cuts.items()},
    }


def _slice(slice_: LineageSlice) -> dict[str, Any]:
    return {
        "name": visible(slice_.slice or slice_.tensor),
        "file": visible(slice_.file),
        "form": f"{slice_.dtype} {list(slice_.shape)}",
        "begin": slice_.begin,
        "end": slice_.end,
        "sha256": slice_.sha256,
        "origin": _origin(slice_.equals, slice_.made),
    }


def _origin(equals: Equals | None, made: Derived | None) -> dict[str, Any]:
    if equals:
        rows = f", rows {equals.rows[0]} to {equals.rows[1] - 1}" if equals.rows else ""
        return {"text": visible(f"equals {equals.tensor}{rows} in {equals.file} of {equals.uri}")}
    assert made is not None  # noqa: S101 - the lineage's reader accepts no third kind
    settings = ", ".join(_settings(made))
    text = f"{made.action} in {made.operation}: {made.tensor} of {made.model}{f' ({settings})' if settings else ''}"
    return {"text": visible(text), "of": [_parent(parent) for parent in made.of]}


def _parent(parent: TracedTensor) -> dict[str, Any]:
    return {**_origin(parent.equals, parent.made), "sha256": parent.sha256}


def _settings(made: Derived) -> Iterator[str]:
    """Yield the settings of a step that are short enough to read."""
    for name, value in sorted(made.parameters.items()):
        if isinstance(value, str | int | float) and len(str(value)) < 40:
            yield f"{name} {value}"
