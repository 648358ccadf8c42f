"""What a build took, as the page of its release shows it: a timeline, and time, processors, GPUs and memory by rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.figures.timeline import Ran, draw_timeline
from herdbook.needs.spent import spent

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.release.reader import Release


@dataclass(frozen=True)
class RuleCost:
    """What the jobs of a rule took.

    Args:
        rule: The rule.
        jobs: How many jobs it has.
        unknown: How many of them have noted nothing, since they were restored from a cache.
        seconds: How long they ran, each for itself.
        cpu_seconds: Seconds of processors.
        gpu_seconds: Seconds of GPUs.
        peak_bytes: The largest memory of one of them.
    """

    rule: str
    jobs: int
    unknown: int
    seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Built:
    """What a build took: by rule, and its timeline as SVG."""

    rules: tuple[RuleCost, ...]
    timeline: str


def built(release: Release, results: Path) -> Built | None:
    """Return what a build took; None if its folder of results has no note of its jobs."""
    rules, ran = [], []
    for rule, jobs in spent(release.plan(), results).items():
        noted = [job for job in jobs if job]
        ran += [Ran(rule, job.begun, job.begun + job.seconds, f"{rule} {job.key[:12]}") for job in noted]
        rules.append(
            RuleCost(
                rule,
                len(jobs),
                len(jobs) - len(noted),
                sum(job.seconds for job in noted),
                sum(job.cpu_seconds for job in noted),
                sum(job.gpus * job.seconds for job in noted),
                max((job.peak_bytes for job in noted), default=0),
            )
        )
    if not ran:
        return None
    title = "When the jobs of each rule ran; times in which none ran are left out"
    return Built(tuple(rules), draw_timeline(ran, title))
