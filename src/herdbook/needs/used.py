"""The memory that a job has used, to be compared with what was requested for it."""

from __future__ import annotations

import re
from pathlib import Path

STATUS = Path("/proc/self/status")
_shared = {"bytes": 0}


def count_from_now() -> None:
    """Count what this process uses beyond what it has now. Called by a fork, which shares that with others."""
    _shared["bytes"] = _read("VmRSS") or 0


def peak_bytes() -> int | None:
    """Return the peak resident memory in bytes of this process, or of a program that it ran if that is more.

    Memory-mapped files count while they are resident, as schedulers count them. None where the system does not report it.

    Source: ``VmHWM`` in proc_pid_status(5). getrusage(2) is of no use for the process itself, since its value survives the
    start of a new program: it would be the peak of the process that started this one.
    """
    peak = _read("VmHWM")
    if peak is None:
        return None
    import resource

    of_programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kB on Linux
    return max(peak - _shared["bytes"], 1024 * of_programs)


def _read(name: str) -> int | None:
    """Return a size in bytes that the system reports of this process."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None
