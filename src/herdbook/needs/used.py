"""The memory that a job has used, to be compared with what was requested for it."""

from __future__ import annotations

import re
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """Return the peak resident memory in bytes of this process, or of a program that it ran if that is more.

    Memory-mapped files count while they are resident, as schedulers count them. None where the system does not report it.

    Source: ``VmHWM`` in proc_pid_status(5). getrusage(2) is of no use for the process itself, since its value survives the
    start of a new program: it would be the peak of the process that started this one.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    if found is None:
        return None
    import resource

    of_programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kB on Linux
    return 1024 * max(int(found[1]), of_programs)
