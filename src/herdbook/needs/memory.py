"""Memory of jobs: the tensors that are in memory at the same time, and what the interpreter and its packages need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.form import is_known
from herdbook.needs.measuring import evaluation_memory, loss_memory, matrix_memory, report_memory
from herdbook.needs.parts import part_memory
from herdbook.needs.process import INTERPRETER_BYTES, TORCH_BYTES
from herdbook.needs.reducing import search_memory
from herdbook.plan import (
    Conversion,
    Evaluation,
    EvaluationData,
    FileLoss,
    Imatrix,
    Node,
    Part,
    Quantized,
    Reference,
    RoutingReport,
    Search,
)
from herdbook.plan.operation import FetchGguf

if TYPE_CHECKING:
    from herdbook.plan import Plan
    from herdbook.plan.job import Subject

# The pieces in which ``herdbook.steps.quantize.encode`` reads a tensor in float32, with its copies of one.
QUANTIZED_PIECES, QUANTIZED_PIECE_BYTES = 10, 1 << 25
# A tensor's entries in records, lineage and claims, as Python objects.
RECORD_BYTES = 20_000


def memory_bytes(plan: Plan, subject: Subject | None, threads: int = 1) -> int:
    """Return the memory of a job in bytes.

    Args:
        plan: The plan.
        subject: The item of the plan that the job makes; None if the job makes the release or reads it as a whole.
        threads: How many matrices, windows of text or documents the job works on at the same time.
    """
    match subject:
        case Part():
            first, further = part_memory(plan, subject)
        case Search():
            first, further = search_memory(plan, subject)
        case Evaluation():
            first, further = evaluation_memory(plan, subject)
        case EvaluationData():
            first, further = TORCH_BYTES + 4 * subject.size_bytes, 0  # documents as Python's objects
        case RoutingReport():
            first, further = report_memory(plan, subject)
        case Reference() | FileLoss():
            item = subject if isinstance(subject, Reference) else subject.reference
            first, further = loss_memory(plan, item)
        case Imatrix():
            first, further = matrix_memory(plan, subject)
        case Conversion():
            first, further = TORCH_BYTES, 0  # the converter and the vocabulary
        case Quantized():
            first, further = INTERPRETER_BYTES + QUANTIZED_PIECES * QUANTIZED_PIECE_BYTES, 0
        case Node():
            # Weights are linked. Of a tokenizer in a GGUF, transformers makes the files of one.
            made = any(isinstance(part.operation, FetchGguf) for part in subject.parts)
            first, further = TORCH_BYTES if made else INTERPRETER_BYTES, 0
        case None:
            # Weights are read in small pieces.
            first = INTERPRETER_BYTES + RECORD_BYTES * sum(len(part.tensors) for part in plan.parts.values())
            if not is_known(plan.released.config):
                first += TORCH_BYTES  # transformers loads the shapes, in a process of its own
            further = 0
    return first + (threads - 1) * further
