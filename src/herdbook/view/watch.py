"""Watching jobs that run: the memory of their processes, and how much of their files is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from herdbook.view.build import JobRun


def look(runs: Iterable[JobRun]) -> None:
    """Note what the jobs hold in memory and have written, where they run on this machine."""
    runs = list(runs)
    processes = _processes()
    for run in runs:
        run.memory_bytes = _memory(run, processes)
        if run.memory_bytes is not None:
            run.peak_bytes = max(run.peak_bytes or 0, run.memory_bytes)
        run.written_bytes = min(run.expected_bytes, _written(run))


def _processes() -> list[tuple[psutil.Process, str]]:
    """Return the processes that descend from this one, each with its command line, parents first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            found.append((process, " ".join(process.cmdline())))
        except psutil.Error:  # it ended, or is another user's
            continue
    return found


def _memory(run: JobRun, processes: Sequence[tuple[psutil.Process, str]]) -> int | None:
    """Return the resident memory of a job's processes in bytes; None if none is found."""
    command = run.command.strip()
    # a shell whose last command this is gives its place to it: then only the command's own words are left
    words = " ".join(command.partition(">")[0].split()[1:])
    for process, line in processes:
        if command and (command in line or (words and line.endswith(f"herdbook {words}"))):
            held = 0
            try:
                for one in (process, *process.children(recursive=True)):
                    held += one.memory_info().rss
            except psutil.Error:
                continue
            return held
    return None


def _written(run: JobRun) -> int:
    """Return how many bytes of a job's first file are there: it grows under a temporary name beside its place.

    Snakemake removes what lies in its place before the job begins.
    """
    if not run.expected_bytes or not run.outputs:
        return 0
    place = run.outputs[0]
    if place.exists():
        return run.expected_bytes
    sizes = []
    for path in place.parent.glob(f".{place.name}.*.part"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # it was renamed just now
            continue
    return max(sizes, default=0)
