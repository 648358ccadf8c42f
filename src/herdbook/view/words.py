"""The view in words: lines and numbers for people."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from herdbook.humanize import duration, plural, size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from herdbook.view.build import Build, JobRun

LAST_LINES = 20
LAST_BYTES = 64 * 1024
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what steers a terminal


def amount(done: int, expected: int) -> str:
    """Return how many bytes of some are there; empty if there are none to come."""
    return f"{size(done)} of {size(expected)}" if expected else ""


def price(text: str) -> tuple[float | None, str]:
    """Return what an hour costs, as the configuration says; or None, and what is wrong with what it says, if anything."""
    try:
        found = float(text) if text else None
    except ValueError:
        found = math.nan
    if found is None or (math.isfinite(found) and found > 0):
        return found, ""
    return None, f"price_per_hour: {text} is no price; a number such as 2.5 is needed. No cost will be said."


def headline(build: Build, now: float) -> str:
    """Return how far a build is, in one line."""
    held = [run.memory_bytes for run in build.running.values() if run.memory_bytes is not None]
    left, whole = build.seconds_left(now)
    parts = [
        f"{len(build.finished)} of {plural(build.total, 'step')} done",
        f"{len(build.running)} running",
        f"{build.waiting} waiting",
        *([f"{len(build.failed)} failed"] if build.failed else []),
        amount(build.written_bytes, build.expected_bytes),
        f"memory {size(sum(held))}" if held else "",
        duration(now - build.started),
        f"{'about' if whole else 'more than'} {duration(left)} left" if left >= 1 else "",
    ]
    return ", ".join(part for part in parts if part)


def wanted(build: Build) -> str:
    """Return what a build will make, in one line."""
    listed = ", ".join(f"{number} {rule}" for rule, number in build.wanted.items())
    there = sum(row.there for row in build.rows(build.started).values())
    known = f"; {there} {'is' if there == 1 else 'are'} there already" if there else ""
    return f"{plural(build.total, 'step')} to make: {listed}{known}"


def done(build: Build, run: JobRun, now: float) -> str:
    """Return that a job has ended, in one line."""
    over = len(build.finished) + len(build.failed)
    made = "from the cache" if run.cached else duration(run.seconds(now))
    parts = [made, *([size(run.expected_bytes)] if run.expected_bytes else []), f"{over} of {build.total}"]
    return f"{_named(run):44} {', '.join(parts)}"


def failure(run: JobRun, now: float) -> list[str]:
    """Return that a job has failed: which, what it was about, its logs, and the last lines of the first that has some."""
    about = [*([f"model {run.model}"] if run.model else []), *([f"key {run.key}"] if run.key else [])]
    lines = [
        f"{_named(run)} failed after {duration(run.seconds(now))}{'; ' if about else ''}{', '.join(about)}"
    ]
    lines += [f"  its log is {path}" for path in run.logs]
    for path in run.logs:
        if said := last_lines(path):
            return [*lines, *(f"  | {line}" for line in said)]
    return [*lines, "  the log is empty"]


def last_lines(path: Path) -> list[str]:
    """Return the last lines of a log that say something, without what would steer a terminal."""
    try:
        with path.open("rb") as file:
            start = max(0, path.stat().st_size - LAST_BYTES)
            file.seek(start)
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-LAST_LINES:]


def _named(run: JobRun) -> str:
    return f"{run.rule} {run.label}".rstrip()


def total(build: Build, now: float, cpu_seconds: float, price: float | None, machines: bool) -> str:
    """Return what a build came to, in one line.

    Args:
        build: The build.
        now: The time.
        cpu_seconds: CPU time of the jobs' processes that ran on this machine.
        price: What an hour costs; None if nobody said.
        machines: Whether jobs ran on machines of their own; each then costs from its submission to its end.
    """
    rows = build.rows(now).values()
    there = sum(row.there for row in rows)
    parts = [
        f"made {plural(sum(row.made for row in rows), 'step')}",
        *(
            [f"{plural(cached, 'file')} from the cache"]
            if (cached := sum(row.cached for row in rows))
            else []
        ),
        f"{there} {'was' if there == 1 else 'were'} there already",
        *([f"{failed} failed"] if (failed := sum(row.failed for row in rows)) else []),
        *([f"{unmade} not made"] if (unmade := sum(row.unmade for row in rows)) else []),
        f"in {duration(now - build.started)}",
        f"CPU time {duration(cpu_seconds)}",
        *([size(written)] if (written := sum(row.written_bytes for row in rows)) else []),
    ]
    if price is not None:
        hours = (sum(row.seconds for row in rows) if machines else now - build.started) / 3600
        parts.append(f"cost {'at most ' if machines else ''}{hours * price:.2f} at {price:g} an hour")
    return ", ".join(parts)


def table(build: Build, now: float) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the head and the rows of the table of what became of each rule's jobs."""
    rows = build.rows(now)
    head = ("rule", "made", "cached", "there", "failed", "not made", "time", "memory", "bytes")
    body = [
        (
            rule,
            *(
                str(number) if number else ""
                for number in (row.made, row.cached, row.there, row.failed, row.unmade)
            ),
            duration(row.seconds) if row.seconds else "",
            size(row.peak_bytes) if row.peak_bytes else "",
            size(row.written_bytes) if row.written_bytes else "",
        )
        for rule, row in rows.items()
    ]
    kept = [
        place
        for place, name in enumerate(head)
        if place == 0 or name == "made" or any(row[place] for row in body)
    ]
    return [head[place] for place in kept], [[row[place] for place in kept] for row in body]
