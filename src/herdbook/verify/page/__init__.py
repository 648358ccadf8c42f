"""A release and its verification as one page of HTML: no network, no library, and nothing that depends on the time.

Of a build in its own folder the page also shows what its jobs took, which is another time in each build.

The release may be a stranger's. Its text enters the page only escaped, or as JSON that the script shows as text; its figures are
images, in which no script runs; and the page's policy allows no other content.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from herdbook import __version__
from herdbook.errors import HerdbookError
from herdbook.humanize import duration, size
from herdbook.layout import CARD, FIGURES, LINEAGE_FIGURE, SUMS
from herdbook.release.finding import Outcome
from herdbook.sources import purl
from herdbook.verify.page import measured, tracing
from herdbook.verify.page.built import built
from herdbook.verify.report import LABELS, outcome, signed_by
from herdbook.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from herdbook.release.reader import Release
    from herdbook.verify.levels import LevelResult

SCRIPTS = ("script.js", "lineage.js", "spectrum.js")
MAX_FIGURE_BYTES = 1 << 20
SHOWN = 200  # findings of a level that are listed


def as_page(
    name: str,
    results: Sequence[LevelResult],
    release: Release | None,
    build: Path | None = None,
    place: Path | None = None,
) -> str:
    """Return the page.

    Args:
        name: The release's name.
        results: The result of each level of its verification.
        release: The release; None if it could not be opened.
        build: The folder of results that it was built in, if that is at hand.
        place: Where the page is written, for its link to the card of a release in a folder.
    """
    import jinja2

    files = resources.files(__package__)
    style, *scripts = (files.joinpath(part).read_text(encoding="utf-8") for part in ("style.css", *SCRIPTS))
    script = "".join(scripts)
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": size, "duration": duration, "svg": _image}
    sections = _Sections(release)
    return environment.from_string(files.joinpath("page.html.j2").read_text(encoding="utf-8")).render(
        name=sections.read(lambda opened: opened.recipe.release.name, name),
        version=__version__,
        outcome=str(outcome(results)),
        digest=release.digest if release else None,
        about=sections.read(tracing.about, None),
        signed=signed_by(results),
        levels=[_level(result) for result in results],
        repo=sections.read(lambda opened: opened.repo, None) or "FOLDER",
        card=_card(release, place) if release else None,
        graph=sections.read(tracing.graph, None),
        models=sections.read(tracing.models, []),
        sources=sections.read(tracing.sources, []),
        slices=sections.read(tracing.slices_of, {"left_out": 0, "tensors": []}),
        spectra=sections.read(tracing.spectra, None),
        measurements=sections.read(measured.measurements, None),
        comparisons=sections.read(measured.comparisons, []),
        documents=sections.read(measured.documents, []),
        routing=sections.read(measured.routing, []),
        losses=sections.read(measured.losses, None),
        built=sections.read(lambda opened: built(opened, build), None) if build else None,
        figures=sections.read(_figures, []),
        files=sections.read(_files, []),
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


def _image(content: str | bytes) -> str:
    """Return an SVG as an address that contains it. As an image it runs no script."""
    data = content.encode() if isinstance(content, str) else content
    return f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"


def _figures(release: Release) -> list[dict[str, str]]:
    names = sorted(name for name in release.sums if name.startswith(f"{FIGURES}/") and name.endswith(".svg"))
    names.sort(key=lambda name: name != LINEAGE_FIGURE)
    return [
        {
            "name": name,
            "image": _image(release.subject.read(name, MAX_FIGURE_BYTES)),
        }
        for name in names
    ]


def _card(release: Release, place: Path | None) -> str | None:
    """Return the address of a release's card: on the Hub, at its commit, or relative to a page that lies above the folder.

    None if there is no card, or if the address would show where on this machine the folder is.
    """
    if CARD not in release.subject.files:
        return None
    if commit := purl.parse(release.subject.uri):
        return f"{commit.endpoint}/{commit.repo}/blob/{commit.commit}/{CARD}"
    folder = getattr(release.subject, "folder", None)
    if folder is None or place is None:
        return None
    above, below = place.parent.resolve(), folder.resolve()
    return f"./{quote((below / CARD).relative_to(above).as_posix())}" if below.is_relative_to(above) else None


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
