"""Planning a model in a format for GPU servers: matrices of linear layers are encoded, everything else is copied."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from herdbook.architectures.form import is_known
from herdbook.architectures.linear import SUFFIX, is_encoded, kept
from herdbook.errors import RecipeError
from herdbook.plan.code import COPY, Code
from herdbook.plan.model import Origin, Tensor
from herdbook.plan.operation import CompressTensors, TakeOver
from herdbook.plan.part import plan_part
from herdbook.plan.sharding import cut
from herdbook.quantization.schemes import KEY, SCALE, SCHEMES, SHAPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan.model import Node, Part
    from herdbook.quantization.schemes import Scheme
    from herdbook.recipe import Compress

COMPRESS_CODE = Code("compress", ("herdbook.steps.compress.step",))
DTYPES = ("BF16", "F16", "F32")  # of matrices that are encoded


def plan_compressed(
    name: str, model: Compress, parent: Node, max_bytes: int
) -> tuple[tuple[Part, ...], dict[str, Any]]:
    """Return the parts of a model in a format for GPU servers, and its configuration.

    Raises:
        RecipeError: If the format cannot hold the model.
    """
    scheme = SCHEMES[model.scheme]
    if problems := list(_objections(parent, scheme)):
        raise RecipeError([f"quantize.schemes: {scheme.name}: {problem}" for problem in problems])
    operation = CompressTensors(scheme.name)
    parts = []
    for number, run in enumerate(cut(list(_tensors(parent, scheme)), max_bytes), start=1):
        computed = any(tensor.action != "copy" for tensor in run)
        made, code = (operation, COMPRESS_CODE) if computed else (TakeOver("compress"), COPY)
        parts.append(plan_part(name, str(number), made, run, code))
    config = parent.config | {KEY: scheme.settings(kept(parent.tensors))}
    return tuple(parts), config


def widths(node: Node, scheme: Scheme) -> dict[str, Any]:
    """Return the bits per weight of an encoded model, and how many weights are encoded or of which dtype, as its loss states them.

    Args:
        node: The encoded model.
        scheme: The format.
    """
    types: Counter[str] = Counter()
    for _, tensor in node.tensors.values():
        types[scheme.name if tensor.action == "compress" else tensor.dtype] += tensor.parameters
    return {
        "bits_per_weight": round(8 * node.size_bytes / types.total(), 3),
        "types": dict(sorted(types.items())),
    }


def _tensors(parent: Node, scheme: Scheme) -> Iterator[Tensor]:
    for name, (holder, tensor) in parent.tensors.items():
        origins = (Origin(holder.key, name),)
        if not is_encoded(name, tensor.shape):
            yield Tensor(name, tensor.dtype, tensor.shape, "copy", origins)
            continue
        module = name.removesuffix(SUFFIX)
        for part, (dtype, shape) in scheme.stored(tensor.dtype, tensor.shape).items():
            held = 0 if part in {SCALE, SHAPE} else tensor.elements
            yield Tensor(f"{module}.{part}", dtype, shape, "compress", origins, weights=held)


def _objections(parent: Node, scheme: Scheme) -> Iterator[str]:
    """Yield why a format cannot hold a model, one line for each kind of reason."""
    if not is_known(parent.config):
        yield (
            f"which matrices of {parent.name!r} are linear layers is not known for its model_type "
            f"{parent.config.get('model_type')!r}; leave it out"
        )
        return
    if any(len(tensor.shape) > 2 for _, tensor in parent.tensors.values()):
        yield f"{parent.name!r} has `layout: fused`, whose stacked experts servers do not read; leave the layout out"
        return
    encoded = {name: tensor for name, (_, tensor) in parent.tensors.items() if is_encoded(name, tensor.shape)}
    if wrong := [name for name, tensor in encoded.items() if tensor.dtype not in DTYPES]:
        yield (
            f"{wrong[0]} has dtype {encoded[wrong[0]].dtype}{_more(wrong)}; matrices of {', '.join(DTYPES)} are encoded. "
            "Set `dtype: bfloat16` where the model is made"
        )
    if wrong := [
        name
        for name, tensor in encoded.items()
        if tensor.shape[0] % scheme.rows or tensor.shape[1] % scheme.columns
    ]:
        rows, columns = encoded[wrong[0]].shape
        yield (
            f"{wrong[0]} has {rows} rows of {columns} weights{_more(wrong)}; GPUs compute with multiples of {scheme.rows} rows and "
            f"{scheme.columns} weights in this format; leave it out"
        )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
