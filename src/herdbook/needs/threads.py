"""How many threads a job is given: as many as it can use, and as go with its memory on most machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.needs.memory import memory_bytes
from herdbook.plan import Evaluation, Part, Quantized, Report, Search

if TYPE_CHECKING:
    from herdbook.plan import Plan
    from herdbook.plan.jobs import Subject

# Memory to a core that machines have at least, where large models are at home.
CORE_BYTES = 4 * 10**9
MOST = 8


def threads(plan: Plan, subject: Subject | None, *, on_gpu: bool = False) -> int:
    """Return how many threads a job is given.

    Args:
        plan: The plan.
        subject: What of the plan the job makes.
        on_gpu: Whether models run on a GPU.
    """
    match subject:
        case Part():
            # So many matrices are reduced at once; copies take seconds and a single core.
            return 4 if subject.reduced else 1
        case Search():
            return MOST
        case Evaluation():
            # So many documents are read at once. Small models are loaded for longer than they read, so that several of
            # them side by side are done sooner than one after another. A GPU is busy with one document.
            return 1 if on_gpu else _beside(memory_bytes(plan, subject))
        case Quantized():
            return max(2, _beside(plan.released.size_bytes))
        case Report():
            return max(4, _beside(plan.released.size_bytes))
    return 1


def _beside(size_bytes: int) -> int:
    """Return how many cores go with so much memory: what is large has many, up to a limit."""
    return min(MOST, -(-size_bytes // CORE_BYTES))
