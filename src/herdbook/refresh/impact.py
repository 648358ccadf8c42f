"""What a build would rebuild for another lock: the keys of two plans, compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.plan.jobs import jobs

if TYPE_CHECKING:
    from herdbook.plan import Plan

# Of these the key holds the lock that lies beside the recipe; a release carries its lock, so any other lock rebuilds them.
OF_THE_LOCK = ("release", "attest", "verify")


@dataclass(frozen=True)
class RebuildCount:
    """The jobs of one rule.

    Args:
        rule: The rule.
        rebuilt: How many of its jobs would run again, or for the first time.
        jobs: How many it has.
        size_bytes: Bytes of weights that those make; 0 if they make none.
    """

    rule: str
    rebuilt: int
    jobs: int
    size_bytes: int


def rebuild_counts(before: Plan, after: Plan) -> list[RebuildCount]:
    """Return what a build by one plan makes that a build by the other has not made, rule by rule, in order of work.

    Args:
        before: The plan of the lock as it was.
        after: The plan of the lock as it is now; another lock than that.
    """
    known = {(job.rule, job.key) for job in jobs(before)}
    every = jobs(after)
    counted = []
    for rule in dict.fromkeys(job.rule for job in every):
        own = [job for job in every if job.rule == rule]
        new = [job for job in own if rule in OF_THE_LOCK or (rule, job.key) not in known]
        counted.append(RebuildCount(rule, len(new), len(own), sum(job.size_bytes for job in new)))
    return counted
