"""The convert and quantize steps: the released model as GGUF, each file made from the safetensors in one pass."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from herdbook.files import write_json
from herdbook.progress import say

if TYPE_CHECKING:
    from herdbook.plan import Plan, Quantized


def convert(plan: Plan) -> None:
    """Make the header of the released model's GGUF files. Raises as ``convert.convert_folder`` does."""
    from herdbook.steps.quantize.convert import convert_folder

    folder = plan.layout.folder(plan.released)
    convert_folder(folder, plan.layout.header(plan.conversion), metadata=plan.gguf_metadata, log=say)


def quantize(plan: Plan, item: Quantized, threads: int) -> None:
    """Make a quantized file and its record, which names each tensor's digest and the tensors that it was made from.

    Raises:
        CheckpointError: If the weights are damaged, infinite or not a number, or another quantized file is damaged.
        DigestMismatchError: If another quantized file is not as it was when it was made.
        StepError: If the model cannot be quantized.
    """
    from herdbook.steps.quantize.held import held_tensors
    from herdbook.steps.quantize.losses import types_within
    from herdbook.steps.quantize.quantize import quantize_file
    from herdbook.weights.imatrix import read_imatrix

    path, head = plan.layout.quantized(item), plan.layout.header(plan.conversion)
    folder = plan.layout.folder(plan.released)
    matrix = None
    if item.imatrix:
        matrix = read_imatrix(plan.layout.matrix(item.imatrix))
    types = item.types
    if item.budget:
        with ThreadPoolExecutor(threads) as pool:
            types = types_within(folder, item.tensors, item.budget, matrix, pool if threads > 1 else None)
    with held_tensors(plan, item, types) as held:
        if held:
            files = ", ".join(sorted({tensor.path.name for tensor in held.values()}))
            say(f"{len(held)} of {len(types)} tensors are copied from {files}")
        made = quantize_file(
            head,
            folder,
            path,
            types,
            item.file_type,
            matrix=matrix,
            entries=item.imatrix.entries if item.imatrix else {},
            held=held,
            threads=threads,
        )
    write_json(plan.layout.quantized_record(item), {**item.about, **made})
