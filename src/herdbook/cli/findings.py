"""The options that ``herdbook verify`` and ``herdbook audit`` share: the sample, and the reports of the findings."""

from __future__ import annotations

import functools
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from herdbook.cli import options
from herdbook.cli.size import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from herdbook.release.finding import Options
    from herdbook.release.reader import Release
    from herdbook.verify.levels import LevelResult

STATUSES = {
    "0": "everything passed",
    "8": "something failed",
    "9": "nothing failed, but something is unverified",
    "10": "the verifier itself failed, which is no evidence about the model",
}


@dataclass(frozen=True)
class Reports:
    """The files to which the reports are written; None for a report that was not requested.

    Args:
        json: The findings as JSON.
        junit: The findings as JUnit's XML, for CI.
        summary: The findings as Markdown, which is appended.
    """

    json: Path | None
    junit: Path | None
    summary: Path | None

    @property
    def options(self) -> dict[str, Path | None]:
        """The path of each, by its option."""
        return {"--json": self.json, "--junit": self.junit, "--summary": self.summary}

    def write(
        self, name: str, results: Sequence[LevelResult], chosen: Options, release: Release | None = None
    ) -> None:
        """Write the requested reports; those about a release name its digest."""
        from herdbook.cli.output import append_report, write_report
        from herdbook.files import write_output
        from herdbook.verify import report

        if self.json:
            write_report(self.json, report.as_json(name, results, chosen, release))
        if self.junit:
            write_output(self.junit, report.as_junit(name, results))
        if self.summary:
            append_report(self.summary, report.as_markdown(name, results))


def write_summary(path: Path, release: Release, results: Sequence[LevelResult], chosen: Options) -> None:
    """Write a verification summary (in-toto's VSA)."""
    from herdbook.cli.output import write_report
    from herdbook.verify import report

    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_report(path, report.as_summary(release, results, chosen, when))


def sample(function: options.Function) -> options.Function:
    """Add ``--sample`` and ``--seed``."""
    return _sample(_seed(function))


def reports(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for reports; the command receives them as ``reports``."""

    @functools.wraps(function)
    def run(*, json: Path | None, junit: Path | None, summary: Path | None, **others: Any) -> Any:
        return function(reports=Reports(json, junit, summary), **others)

    return options.json(_junit(_summary(run)))


_sample = click.option(
    "--sample",
    type=Size(everything="all"),
    default="500MB",
    show_default=True,
    metavar="SIZE",
    help="How many bytes to compare with upstream, such as 500MB, or all.",
)
_seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=lambda: secrets.randbelow(1 << 31),
    show_default="random, and printed",
    help="Determines the sample.",
)
_junit = click.option(
    "--junit", type=options.REPORT, metavar="FILE", help="Write a JUnit report (XML) to FILE."
)
_summary = click.option(
    "--summary",
    type=options.REPORT,
    metavar="FILE",
    help="Append a report in Markdown to FILE, such as $GITHUB_STEP_SUMMARY.",
)
