"""The convert and quantize steps: the released model as GGUF, and each file verified against the safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.files import write_json
from herdbook.progress import say

if TYPE_CHECKING:
    from herdbook.plan import Plan, Quantized


def convert(plan: Plan) -> None:
    """Make the full-width GGUF of the released model. Raises as ``convert.convert_folder`` does."""
    from herdbook.steps.quantize.convert import convert_folder

    folder = plan.layout.folder(plan.released)
    convert_folder(folder, plan.layout.full_width(plan.conversion), metadata=plan.gguf_metadata, log=say)


def quantize(plan: Plan, item: Quantized, threads: int) -> None:
    """Make a quantized file, then recompute each of its tensors directly from the safetensors and compare.

    Raises:
        VerificationError: If a tensor of the file differs from the one that follows from the released weights; it is named.
        StepError: If the method is unknown or the model cannot be quantized.
    """
    from herdbook.steps.quantize.derive import derive, require_equal
    from herdbook.steps.quantize.quantize import quantize_file

    path = plan.layout.quantized(item)
    quantize_file(plan.layout.full_width(plan.conversion), path, item.method, threads=threads)
    derived = derive(path, plan.layout.folder(plan.released), threads=threads)
    require_equal(derived, str(path))
    write_json(plan.layout.quantized_record(item), {**item.about, **derived})
