"""What a build would rebuild for another lock: the keys of two plans, compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.plan.jobs import jobs

if TYPE_CHECKING:
    from herdbook.plan import Plan

# Their keys are computed from the lock file beside the recipe, which is one and the same for both plans here. A release
# contains its lock, so a changed lock always rebuilds them.
OF_THE_LOCK = ("release", "attest", "verify")


@dataclass(frozen=True)
class RebuildCount:
    """How many jobs of one rule a build would run.

    Args:
        rule: The rule.
        rebuilt: How many of its jobs would run.
        jobs: How many jobs it has.
        size_bytes: Bytes of weights that the jobs that run make.
    """

    rule: str
    rebuilt: int
    jobs: int
    size_bytes: int


def rebuild_counts(before: Plan, after: Plan) -> list[RebuildCount]:
    """Count the jobs of a plan that are not in an earlier plan, by rule, in the order of the jobs.

    Args:
        before: The plan of the earlier lock.
        after: The plan of the new lock, which differs from the earlier one.
    """
    known = {(job.rule, job.key) for job in jobs(before)}
    planned = jobs(after)
    counts = []
    for rule in dict.fromkeys(job.rule for job in planned):
        own = [job for job in planned if job.rule == rule]
        new = [job for job in own if rule in OF_THE_LOCK or (rule, job.key) not in known]
        counts.append(RebuildCount(rule, len(new), len(own), sum(job.size_bytes for job in new)))
    return counts
