"""A release and its verification as one page of HTML: no network, no library, nothing that depends on the time.

The release may be a stranger's. Its text enters the page only escaped, or as JSON that the script shows as text; its figures are
images, in which no script runs; and the page's policy allows no other content.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING, Any

from herdbook import __version__
from herdbook.comparison.marks import results_of
from herdbook.errors import HerdbookError
from herdbook.humanize import size
from herdbook.layout import CARD, COMPARISONS, EVALUATIONS, FIGURES, LINEAGE_FIGURE, SUMS
from herdbook.plan.material import ancestry, materials
from herdbook.release.finding import Outcome
from herdbook.sources import purl
from herdbook.verify.report import LABELS, outcome
from herdbook.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from herdbook.provenance.lineage import Derived, Equals, LineageSlice, TracedTensor
    from herdbook.release.reader import Release
    from herdbook.verify.levels import LevelResult

MAX_SLICES = 20_000  # whose lineage is in the page
MAX_FIGURE_BYTES = 1 << 20
SHOWN = 200  # findings of a level that are listed


def as_page(name: str, results: Sequence[LevelResult], release: Release | None) -> str:
    """Return the page.

    Args:
        name: The release's name.
        results: The result of each level of its verification.
        release: The release; None if it could not be opened.
    """
    import jinja2

    files = resources.files(__package__)
    style, script = (files.joinpath(part).read_text(encoding="utf-8") for part in ("style.css", "script.js"))
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = size
    sections = _Sections(release)
    return environment.from_string(files.joinpath("page.html.j2").read_text(encoding="utf-8")).render(
        name=sections.read(lambda opened: opened.recipe.release.name, name),
        version=__version__,
        outcome=str(outcome(results)),
        digest=release.digest if release else None,
        levels=[_level(result) for result in results],
        models=sections.read(_models, []),
        sources=sections.read(_sources, []),
        measurements=sections.read(_measurements, None),
        comparisons=sections.read(_comparisons, []),
        figures=sections.read(_figures, []),
        files=sections.read(_files, []),
        slices=sections.read(_slices, {"left_out": 0, "tensors": []}),
        problems=sections.problems,
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src '{_source(style)}'; script-src '{_source(script)}'",
    )


def _source(text: str) -> str:
    """Return what names an inline style or script in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


class _Sections:
    """Reads the parts of a release; what cannot be read is a problem, and the rest of the page stays."""

    def __init__(self, release: Release | None) -> None:
        self._release = release
        self.problems: list[str] = []

    def read(self, section: Callable[[Release], Any], otherwise: Any) -> Any:
        """Return what a section shows, or something else if it cannot be read."""
        if self._release is None:
            return otherwise
        try:
            return section(self._release)
        except (HerdbookError, OSError) as error:
            problem = str(error)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            problem = f"something is damaged: {error!r}"
        if problem not in self.problems:
            self.problems.append(problem)
        return otherwise


def _level(result: LevelResult) -> dict[str, Any]:
    worst = [f for f in result.findings if f.outcome is not Outcome.PASSED]
    passed = [f for f in result.findings if f.outcome is Outcome.PASSED]
    listed = [*worst, *passed][:SHOWN]
    return {
        "name": result.level.name,
        "proves": result.level.proves,
        "counts": Counter(str(finding.outcome) for finding in result.findings),
        "bad": bool(worst),
        "unproven": result.unproven,
        "more": len(result.findings) - len(listed),
        "findings": [
            {
                "label": LABELS[finding.outcome],
                "outcome": str(finding.outcome),
                "check": finding.check,
                "subject": finding.subject,
                "detail": finding.detail,
                "facts": [
                    (fact, str(value))
                    for fact in ("file", "tensor", "source", "expected", "found")
                    if (value := getattr(finding, fact)) is not None and finding.outcome is not Outcome.PASSED
                ],
            }
            for finding in listed
        ],
    }


def _models(release: Release) -> list[dict[str, Any]]:
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


def _sources(release: Release) -> list[dict[str, Any]]:
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


def _measurements(release: Release) -> dict[str, Any] | None:
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


def _comparisons(release: Release) -> list[dict[str, Any]]:
    if COMPARISONS not in release.sums:
        return []
    return list(release.subject.json(COMPARISONS)["comparisons"])


def _figures(release: Release) -> list[dict[str, str]]:
    names = sorted(name for name in release.sums if name.startswith(f"{FIGURES}/") and name.endswith(".svg"))
    names.sort(key=lambda name: name != LINEAGE_FIGURE)
    return [
        {
            "name": name,
            "data": base64.b64encode(release.subject.read(name, MAX_FIGURE_BYTES)).decode(),
        }
        for name in names
    ]


def _files(release: Release) -> list[dict[str, Any]]:
    sizes = release.subject.files
    return [
        {
            "name": name,
            "size": sizes[name].size_bytes if name in sizes else None,
            "digest": digest,
            "about": {CARD: "the card", SUMS: "checksums"}.get(name, ""),
        }
        for name, digest in sorted(release.digests.items())
    ]


def _slices(release: Release) -> dict[str, Any]:
    """Return the lineage as the script reads it, as text that cannot end its element."""
    slices = release.lineage()
    content = json.dumps(
        [_slice(slice_) for slice_ in slices[:MAX_SLICES]], separators=(",", ":"), ensure_ascii=True
    )
    return {
        "left_out": max(0, len(slices) - MAX_SLICES),
        "count": len(slices),
        "json": content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
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
