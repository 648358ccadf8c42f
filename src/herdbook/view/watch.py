"""Watching running jobs: the memory of their processes, and the bytes written so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from herdbook.forkserver.server import title

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from herdbook.view.build import JobRun


def look(runs: Iterable[JobRun]) -> None:
    """Update memory and written bytes of jobs that run on this machine."""
    runs = list(runs)
    processes = _processes()
    for run in runs:
        run.memory_bytes = _memory(run, processes)
        if run.memory_bytes is not None:
            run.peak_bytes = max(run.peak_bytes or 0, run.memory_bytes)
        run.written_bytes = min(run.expected_bytes, _written(run))


def _processes() -> list[tuple[psutil.Process, str, str]]:
    """Return the descendants of this process, each with its command line and name, parents first."""
    processes = []
    for process in psutil.Process().children(recursive=True):
        try:
            processes.append((process, " ".join(process.cmdline()), process.name()))
        except psutil.Error:  # it ended, or belongs to another user
            continue
    return processes


def _memory(run: JobRun, processes: Sequence[tuple[psutil.Process, str, str]]) -> int | None:
    """Return the resident memory of a job's processes in bytes; None if they are not found."""
    command = run.command.strip()
    # a shell replaces itself with its last command: then only the command's own words are in a command line
    words = " ".join(command.partition(">")[0].split()[1:])
    for process, line, _ in processes:
        if command and (command in line or (words and line.endswith(f"herdbook {words}"))):
            try:
                members = [process, *process.children(recursive=True)]
                return sum(_resident(one) + _forked(one.pid, processes) for one in members)
            except psutil.Error:
                continue
    return None


def _forked(asking: int, processes: Sequence[tuple[psutil.Process, str, str]]) -> int:
    """Return the memory of the process that stands in for another, without what it shares with the one that it is a fork of.

    The sizes of the two do not tell: that one grows by the imports of later jobs, and a fork lacks code that it has not run yet.
    """
    for process, _, name in processes:
        if name == title(asking):
            programs = process.children(recursive=True)
            return int(process.memory_full_info().uss) + sum(map(_resident, programs))
    return 0


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def _written(run: JobRun) -> int:
    """Return how many bytes of a job's first output were written: it grows under a temporary name in the same folder.

    Snakemake removes an earlier output before the job begins.
    """
    if not run.expected_bytes or not run.outputs:
        return 0
    output = run.outputs[0]
    if output.exists():
        return run.expected_bytes
    sizes = []
    for path in output.parent.glob(f".{output.name}.*.part"):
        try:
            sizes.append(_size(path))
        except OSError:  # it was renamed just now
            continue
    return max(sizes, default=0)


def _size(path: Path) -> int:
    """Return the size of a file, or of all files in a folder; links are not counted."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())
