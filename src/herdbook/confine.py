"""Limits that a process sets itself before it works on what a stranger wrote, where that can decide how much it takes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def confine(more_bytes: int, cpu_seconds: int | None = None) -> None:
    """Limit what this process may allocate from now on, where the system can, and how long it may compute.

    Beyond the first limit, allocations fail; beyond the second, the process ends.
    """
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])  # of data and stacks
        most = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    if cpu_seconds is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
