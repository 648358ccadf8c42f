"""What the jobs of a build took: time, CPU, GPUs and memory. Each job notes its own, in a file below the results."""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from herdbook import jsonio, limits
from herdbook.files import write_json
from herdbook.layout import Layout
from herdbook.needs.used import peak_bytes
from herdbook.plan.jobs import needed_results

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan import Plan
    from herdbook.plan.job import Job


@dataclass(frozen=True)
class Spent:
    """What a job took.

    Args:
        key: Its key.
        begun: When it began, in seconds since 1970.
        seconds: How long it ran.
        cpu_seconds: Seconds of processors, of it and of the programs that it ran.
        gpus: How many GPUs it held.
        peak_bytes: Its peak memory; 0 if the system does not report it.
    """

    key: str
    begun: float
    seconds: float
    cpu_seconds: float
    gpus: int
    peak_bytes: int


def note(plan: Plan, job: Job, begun: float, gpus: int) -> None:
    """Write what this process took for a job, which has just ended.

    Args:
        plan: The job's plan.
        job: The job.
        begun: When it began, in seconds since 1970.
        gpus: How many GPUs it held.
    """
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_seconds = sum(one.ru_utime + one.ru_stime for one in used)
    seconds = time.time() - begun
    spent = Spent(job.key, round(begun, 1), round(seconds, 2), round(cpu_seconds, 2), gpus, peak_bytes() or 0)
    write_json(plan.layout.spent(job.rule, job.id), asdict(spent))


def spent(plan: Plan, results: Path) -> dict[str, list[Spent | None]]:
    """Return what the jobs took that make the results of a release, by rule, in the order of the plan.

    A job that has noted nothing is None: it was restored from a cache, or made by another version.

    Args:
        plan: The plan.
        results: The folder of results that it was built in.
    """
    layout = Layout(results, plan.layout.release)
    found: dict[str, list[Spent | None]] = {}
    for job in needed_results(plan):
        found.setdefault(job.rule, []).append(_read(layout.spent(job.rule, job.id), job.key))
    return found


def _read(path: Path, key: str) -> Spent | None:
    try:
        noted = Spent(**jsonio.load_object(path.read_bytes(), limits.DOCUMENT))
        numbers = (noted.begun, noted.seconds, noted.cpu_seconds, noted.gpus, noted.peak_bytes)
        return noted if noted.key == key and all(number >= 0 for number in numbers) else None
    except (OSError, ValueError, TypeError):
        return None
