"""The text of the view: lines and tables for people."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import jsonio, limits, visible
from herdbook.cache.s3 import SCHEME, S3Store
from herdbook.errors import CacheError
from herdbook.files import sha256_file
from herdbook.humanize import duration, plural, size
from herdbook.layout import CARD, PUBLIC_KEY, SIGNATURE, SUMS
from herdbook.plan.release import other_origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.layout import Layout
    from herdbook.view.build import Build, JobRun

PASSED = "passed"
# What people build alone, by its step.
RESULTS = {"evaluate": "measurements", "quantize": "quantized files", "card": "card"}
LAST_LINES = 20
LAST_BYTES = 64 * 1024
COLORS = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|\x07"
)  # what programs write for a terminal, of no use in a quotation


def amount(done: int, expected: int) -> str:
    """Return how many of the expected bytes were written; empty if none are expected."""
    return f"{size(done)} of {size(expected)}" if expected else ""


def headline(build: Build, now: float) -> str:
    """Return the progress of a build, in one line."""
    memory = [run.memory_bytes for run in build.running.values() if run.memory_bytes is not None]
    left, is_complete = build.seconds_left(now)
    parts = [
        f"{len(build.finished)} of {plural(build.total, 'step')} done",
        f"{len(build.running)} running",
        f"{build.waiting} waiting",
        *([f"{len(build.failed)} failed"] if build.failed else []),
        amount(build.written_bytes, build.expected_bytes),
        f"memory {size(sum(memory))}" if memory else "",
        duration(now - build.started),
        f"{'about' if is_complete else 'at least'} {duration(left)} left" if left >= 1 else "",
    ]
    return ", ".join(part for part in parts if part)


def scheduled(build: Build) -> str:
    """Return what a build will run, in one line."""
    listed = ", ".join(f"{number} {rule}" for rule, number in build.scheduled.items())
    up_to_date = sum(row.up_to_date for row in build.rows(build.started).values())
    rest = f"; {up_to_date} up to date" if up_to_date else ""
    return f"{plural(build.total, 'step')} to run{': ' if listed else ''}{listed}{rest}"


def completed(build: Build, run: JobRun, now: float) -> str:
    """Return the line for a job that has completed."""
    ended = len(build.finished) + len(build.failed)
    how = "from the cache" if run.cached else duration(run.seconds(now))
    parts = [how, *([size(run.expected_bytes)] if run.expected_bytes else []), f"{ended} of {build.total}"]
    return f"{_named(run):44} {', '.join(parts)}"


def failure(run: JobRun, now: float) -> list[str]:
    """Return the lines for a job that has failed: job, model, key, logs, and the last lines of the first nonempty log."""
    subject = [*([f"model {run.model}"] if run.model else []), *([f"key {run.key}"] if run.key else [])]
    lines = [
        f"{_named(run)} failed after {duration(run.seconds(now))}{'; ' if subject else ''}{', '.join(subject)}"
    ]
    lines += [f"  log: {path}" for path in run.logs]
    for path in run.logs:
        if tail := last_lines(path):
            return [*lines, *(f"  | {line}" for line in tail)]
    return [*lines, "  the log is empty"]


def last_lines(place: str) -> list[str]:
    """Return the last nonempty lines of a log, without control sequences.

    Args:
        place: Its path, or its address in a bucket.
    """
    try:
        text = _end(place).decode("utf-8", errors="replace")
    except (OSError, CacheError):
        return []
    lines = [
        visible.line(COLORS.sub("", line.rstrip("\r").rpartition("\r")[2])).rstrip()
        for line in text.split("\n")
    ]
    return [line for line in lines if line][-LAST_LINES:]


def _end(place: str) -> bytes:
    if place.startswith(SCHEME):
        folder, _, name = place.rpartition("/")
        return (S3Store(folder).read(name) or b"")[-LAST_BYTES:]
    with Path(place).open("rb") as file:
        file.seek(max(0, Path(place).stat().st_size - LAST_BYTES))
        return file.read()


def _named(run: JobRun) -> str:
    return f"{run.rule} {run.label}".rstrip()


def total(build: Build, now: float, cpu_seconds: float, price: float | None, machines: bool) -> str:
    """Return the summary of a build, in one line.

    Args:
        build: The build.
        now: The time, by the clock of the events.
        cpu_seconds: CPU time of the jobs' processes that ran on this machine.
        price: The price of an hour; None if it is not configured.
        machines: Whether jobs ran on machines of their own; each then costs from its submission to its end.
    """
    rows = build.rows(now).values()
    parts = [
        f"completed {plural(sum(row.completed for row in rows), 'step')}",
        *(
            [f"{plural(cached, 'file')} from the cache"]
            if (cached := sum(row.cached for row in rows))
            else []
        ),
        f"{sum(row.up_to_date for row in rows)} up to date",
        *([f"{failed} failed"] if (failed := sum(row.failed for row in rows)) else []),
        *([f"{not_run} not run"] if (not_run := sum(row.not_run for row in rows)) else []),
        f"in {duration(now - build.started)}",
        f"CPU time {duration(cpu_seconds)}",
        *([size(written)] if (written := sum(row.written_bytes for row in rows)) else []),
    ]
    if price is not None:
        hours = (sum(row.seconds for row in rows) if machines else now - build.started) / 3600
        parts.append(f"cost {'at most ' if machines else ''}{hours * price:.2f} at {price:g} an hour")
    return ", ".join(parts)


def ending(layout: Layout, recipe: str, repo: str | None, *, names_signer: bool = False) -> list[str]:
    """Return what a finished build ends with: where release and card are, the verdict, and what to do next.

    Args:
        layout: The paths of the build.
        recipe: The recipe's path, as it was given.
        repo: The repository on the Hub that the recipe names; None if it names none.
        names_signer: Whether the recipe names who signs.
    """
    try:
        found = jsonio.load(layout.verification.read_bytes(), limits.DOCUMENT)
        outcome, level = str(found["outcome"]), str(found["level"])
        verified = found["digest"] == sha256_file(layout.release_folder / SUMS)
        if not verified or other_origin(layout.release_folder, Path(recipe)):  # it is about another release
            return []
    except (OSError, ValueError, LookupError, TypeError):  # nothing was verified
        return []
    if outcome != PASSED:
        follow = [f"next: see why: herdbook verify {shlex.quote(str(layout.release_folder))}"]
    elif repo:
        follow = [
            f"next: read the card and the page, then: herdbook publish --recipe {shlex.quote(recipe)} --dry-run"
        ]
    else:
        follow = [
            f"next: read the card and the page, then change {recipe} and build again: only what changed is rebuilt",
            "or begin with a merge on the Hub: herdbook new FOLDER --from owner/name",
        ]
    return [
        f"release: {layout.release_folder}",
        f"card: {layout.release_folder / CARD}",
        f"verified: {outcome} at the level {level} ({layout.page})",
        *([] if names_signer else _signed(layout.release_folder)),
        *follow,
    ]


def partial(build: Build) -> list[str]:
    """Return where the results are of a build that ended without a release, such as that of the target ``evaluate``."""
    folders: dict[str, set[Path]] = {}
    for run in build.finished:
        name = RESULTS.get(build.step_of(run))
        if name and run.outputs and run.outputs[0].exists():  # on another machine, a mark stands for them
            folders.setdefault(name, set()).add(run.outputs[0].parent)
    return [f"{name}: {folder}" for name in folders for folder in sorted(folders[name])]


def _signed(folder: Path) -> list[str]:
    """Return a line on who signed a release whose recipe, and so its card, names nobody; none if it is not signed."""
    try:
        by, named = (
            f"by key {sha256_file(folder / PUBLIC_KEY)}",
            "key",
        )  # a fingerprint is the digest of that file
    except OSError:
        if not (folder / SIGNATURE).is_file():
            return []
        by, named = "without a key", "identity and issuer"
    return [f"signed: {by}; the card says so once the recipe names the {named} (release.signer)"]


def table(build: Build, now: float) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the head and the rows of the table of the rules; empty columns are left out."""
    rows = build.rows(now)
    head = ("rule", "completed", "cached", "up to date", "failed", "not run", "time", "memory", "bytes")
    body = [
        (
            rule,
            *(
                str(number) if number else ""
                for number in (row.completed, row.cached, row.up_to_date, row.failed, row.not_run)
            ),
            duration(row.seconds) if row.seconds else "",
            size(row.peak_bytes) if row.peak_bytes else "",
            size(row.written_bytes) if row.written_bytes else "",
        )
        for rule, row in rows.items()
    ]
    shown = [
        column
        for column, name in enumerate(head)
        if name in {"rule", "completed"} or any(row[column] for row in body)
    ]
    return [head[column] for column in shown], [[row[column] for column in shown] for row in body]
