"""Planning a model in a format for GPU servers or Macs: matrices are encoded, everything else is copied."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from herdbook.errors import RecipeError
from herdbook.plan.code import COPY, Code
from herdbook.plan.model import Origin, Tensor
from herdbook.plan.operation import CompressTensors, TakeOver
from herdbook.plan.part import plan_part
from herdbook.plan.sharding import cut
from herdbook.quantization.schemes import SCHEMES
from herdbook.weights.compressed import LAYOUTS, modules_of, stacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan.model import Node, Part
    from herdbook.quantization.scheme import Library, Scheme
    from herdbook.recipe import Compress
    from herdbook.weights.compressed import Layout

STEP = ("herdbook.steps.compress.step",)
SERVERS, MACS = "herdbook.steps.compress.compressed_tensors", "herdbook.steps.compress.mlx"
CODES: dict[Library, Code] = {
    "compressed-tensors": Code("compress", STEP, (MACS,)),
    "mlx": Code("compress-mlx", STEP, (SERVERS,)),
}
DTYPES = ("BF16", "F16", "F32")  # of matrices that are encoded


def plan_compressed(
    name: str, model: Compress, parent: Node, max_bytes: int
) -> tuple[tuple[Part, ...], dict[str, Any], list[str]]:
    """Return the parts of an encoded model, its configuration, and warnings.

    Raises:
        RecipeError: If the format cannot hold the model.
    """
    scheme = SCHEMES[model.scheme]
    layout = LAYOUTS[scheme.library]
    where = f"quantize.schemes: {scheme.name}: "
    if problems := list(_objections(parent, scheme, layout)):
        raise RecipeError([where + problem for problem in problems])
    operation, copying = CompressTensors(scheme.name), TakeOver("compress")
    parts = []
    for number, run in enumerate(cut(list(_tensors(parent, scheme, layout)), max_bytes), start=1):
        # a shard of copies is the same in every format with such a header
        shared = scheme.header == copying.header and all(tensor.action == "copy" for tensor in run)
        made, code = (copying, COPY) if shared else (operation, CODES[scheme.library])
        parts.append(plan_part(name, str(number), made, run, code))
    settings = dict.fromkeys(scheme.keys, scheme.settings(layout.kept(parent.tensors)))
    config = parent.config | layout.settings_of(parent.config) | settings
    return tuple(parts), config, [where + warning for warning in layout.warnings(parent.config)]


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


def _tensors(parent: Node, scheme: Scheme, layout: Layout) -> Iterator[Tensor]:
    matrices = []
    for name, (holder, tensor) in parent.tensors.items():
        if layout.is_left_out(name, parent.config):
            continue
        if layout.is_encoded(name, tensor.shape):
            matrices.append(name)
        else:
            yield Tensor(name, tensor.dtype, tensor.shape, "copy", (Origin(holder.key, name),))
    for module, names in modules_of(matrices, layout).items():
        origins = tuple(Origin(parent.tensors[name][0].key, name) for name in names)
        first = parent.tensors[names[0]][1]
        whole = stacked(first.shape, len(names), module, layout)
        for part, (dtype, shape) in scheme.stored(first.dtype, whole).items():
            weights = len(names) * first.elements if part == scheme.numbers else 0
            slices = tuple(f"{name.rpartition('.')[0]}.{part}" for name in names)
            own = slices if layout.is_stacked(module) else ()
            yield Tensor(f"{module}.{part}", dtype, shape, "compress", origins, own, weights)


def _objections(parent: Node, scheme: Scheme, layout: Layout) -> Iterator[str]:
    """Yield why a format cannot hold a model, one line for each kind of reason."""
    found = list(layout.objections(parent.name, parent.config, parent.tensors))
    yield from found
    if found:
        return
    if any(len(tensor.shape) > 2 for _, tensor in parent.tensors.values()):
        yield (
            f"{parent.name!r} has `layout: fused`, whose stacked experts {scheme.readers} do not read; leave the layout out"
        )
        return
    encoded = {
        name: tensor
        for name, (_, tensor) in parent.tensors.items()
        if layout.is_encoded(name, tensor.shape) and not layout.is_left_out(name, parent.config)
    }
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
            f"{wrong[0]} has {rows} rows of {columns} weights{_more(wrong)}; {scheme.demand}; leave it out"
        )
    for module, names in modules_of(encoded, layout).items():
        if len({(encoded[name].dtype, encoded[name].shape) for name in names}) > 1:
            yield f"{module}: the matrices of its experts differ in dtype or shape, and are to be stacked; leave it out"
            return


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
