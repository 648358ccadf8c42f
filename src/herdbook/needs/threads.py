"""How many threads a job gets: what it can use, in proportion to its memory on common machines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from herdbook.needs.memory import memory_bytes
from herdbook.needs.time import SLOW, seconds
from herdbook.plan import Evaluation, FileLoss, Imatrix, Part, Quantized, Reference, RoutingReport, Search

if TYPE_CHECKING:
    from herdbook.plan import Plan
    from herdbook.plan.job import Subject

# The least memory per core of machines on which large models are built.
CORE_BYTES = 4 * 10**9
MOST = 8


def threads(plan: Plan, subject: Subject | None, *, on_gpu: bool = False, alone: bool = False) -> int:
    """Return how many threads a job gets.

    Args:
        plan: The plan.
        subject: The item of the plan that the job makes.
        on_gpu: Whether models run on a GPU.
        alone: As in ``seconds``.
    """
    match subject:
        case Part():
            # One thread per matrix that is being reduced. Copies take seconds and a single core, by which a cluster's profile knows
            # that they need no GPU; without GPUs, a second core would only be waited for where there is little to reduce.
            least = 2 if on_gpu else 1
            return min(4, max(least, _worth(plan, subject))) if subject.reduced else 1
        case Search():
            return MOST
        case Evaluation():
            # One thread per document that is being read. Small models spend more time loading than reading, so several
            # jobs in parallel finish sooner than one with many threads. One document keeps a GPU busy.
            return 1 if on_gpu else max(1, min(MOST, memory_bytes(plan, subject) // CORE_BYTES))
        case Quantized():
            return min(max(2, _cores_for(plan.released.size_bytes)), _worth(plan, subject, alone=alone))
        case RoutingReport() | Imatrix() | Reference() | FileLoss():
            return min(max(4, _cores_for(plan.released.size_bytes)), _worth(plan, subject))
    return 1


def _worth(plan: Plan, subject: Subject, *, alone: bool = False) -> int:
    """Return how many threads have at least as much work each as the start of the process, during which they wait."""
    return max(1, math.ceil(seconds(plan, subject, alone=alone) / SLOW.start) - 1)


def _cores_for(size_bytes: int) -> int:
    """Return how many cores usually come with an amount of memory, up to a limit."""
    return min(MOST, -(-size_bytes // CORE_BYTES))
