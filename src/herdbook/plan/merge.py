"""Planning dense merges: each tensor from those of its name in all models, or layers of several models stacked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import ONE_FORM
from herdbook.architectures.form import HEAD, bias_setting
from herdbook.architectures.layers import Depths
from herdbook.architectures.meaning import differences, lengths, unsaid
from herdbook.architectures.modules import REST, sections, split
from herdbook.architectures.rows import is_per_token, rows_of
from herdbook.errors import RecipeError
from herdbook.plan.aligned_merge import aligned, cropped, crops, unaligned
from herdbook.plan.aligned_merge import warnings as warnings_of
from herdbook.plan.alignment import form_of_rows
from herdbook.plan.code import COPY, Code
from herdbook.plan.merge_values import is_nothing, values_of, without_effect
from herdbook.plan.model import Origin, Part, Tensor
from herdbook.plan.operation import MergeTensors, TakeOver
from herdbook.plan.part import plan_part
from herdbook.plan.runs import taken
from herdbook.plan.sharding import cut
from herdbook.plan.stack import LAYER_NUMBER, is_unread, stacked, unstackable
from herdbook.recipe import Linear, Modular, Passthrough, Slerp
from herdbook.recipe.tokenizer import keeper
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from herdbook.plan.alignment import Alignment
    from herdbook.plan.model import Node
    from herdbook.plan.operation import Values
    from herdbook.recipe import Dense

_NATIVE, _AS_MERGEKIT = (f"herdbook.steps.merge.{module}" for module in ("methods", "as_mergekit"))
MERGE_CODE = Code("merge", ("herdbook.steps.merge.step",), without=(_AS_MERGEKIT,))
AS_MERGEKIT_CODE = Code("merge-as-mergekit", ("herdbook.steps.merge.step",), without=(_NATIVE,))
SEMANTICS = "mergekit-0.1.5"


def plan_merge(
    name: str, merge: Dense, nodes: Mapping[str, Node], max_bytes: int, alignment: Alignment | None = None
) -> tuple[tuple[Part, ...], dict[str, Any], list[str]]:
    """Return the parts of a dense merge, its configuration, and warnings.

    Args:
        name: The name of the merge.
        merge: The merge.
        nodes: The models of the recipe so far.
        max_bytes: See ``cut``.
        alignment: How the rows of the embeddings are lined up; None if equal rows are equal tokens in all models.

    Raises:
        RecipeError: If the models do not fit each other; all misfits are named.
    """
    where = f"models.{name}.merge"
    models = taken(where, merge, nodes)
    inputs = list(models.values())
    by_token = alignment is not None or crops(merge)
    problems = _misfits(where, inputs, stacked=isinstance(merge, Passthrough), by_token=by_token)
    if alignment:
        problems += unaligned(where, merge, models, alignment)
    if isinstance(merge, Passthrough) and not problems:
        problems = unstackable(where, inputs)
    problems = problems or without_effect(where, merge, models)
    if problems:
        raise RecipeError(problems)
    if isinstance(merge, Modular):
        parts, tensors = _by_module(name, where, merge, models, max_bytes)
        config = dict(inputs[0].config)
    elif isinstance(merge, Passthrough):
        tensors, values, config = stacked(where, merge, models)
    else:
        tensors, values = _joined(where, merge, [models[model] for model in merge.inputs])
        config = dict(inputs[0].config)
        if is_nothing(merge, values.values()):
            result = "zero" if isinstance(merge, Linear) else f"the base {inputs[0].name!r}"
            raise RecipeError(f"{where}.models: all weights are zero, so the merge would be {result}")
    if alignment:
        tensors, values = aligned(merge, tensors, values, models, alignment)
        config = alignment.configured(config, nodes[keeper(merge.tokenizer, merge.inputs[0])])
    left_out: list[str] = []
    if crops(merge):
        tensors, values, left_out = cropped(where, merge, tensors, values, models)
        config |= {"vocab_size": rows_of({tensor.name: tensor.shape for tensor in tensors})}
    if merge.written_dtype or merge.is_as_mergekit:
        config = _with_dtype(config, {tensor.dtype for tensor in tensors})
    warnings = [
        f"{where}: {one.name!r} has {setting}, and {two.name!r} does not state it; if transformers' default is another number, equal "
        "numbers mean different things in them"
        for node in inputs[1:]
        for one, two in ((inputs[0], node), (node, inputs[0]))
        for setting in unsaid(one.config, two.config)
    ]
    warnings += [
        f"{where}: {inputs[0].name!r} and {node.name!r} differ in {difference}; the result has that of {inputs[0].name!r}"
        for node in inputs[1:]
        for difference in lengths(inputs[0].config, node.config)
    ]
    subtracted = None if isinstance(merge, Slerp) else getattr(merge, "base", None)
    base = nodes[subtracted] if subtracted else None
    warnings += [
        f"{where}: {node.name!r} is equal to the base {base.name!r}, so its task vector is zero"
        for node in inputs
        if base and node.name != base.name and node.key == base.key
    ]
    warnings += left_out
    if alignment:
        warnings += warnings_of(where, merge, alignment)
    if not isinstance(merge, Modular):
        parts = _parts(name, "", merge, tensors, values, max_bytes)
    return parts, config, warnings


def _by_module(
    name: str, where: str, merge: Modular, nodes: Mapping[str, Node], max_bytes: int
) -> tuple[tuple[Part, ...], list[Tensor]]:
    """Return the parts of a merge of each module for itself, and all of their tensors.

    Raises:
        RecipeError: If a module has no tensors or not the layers that are asked for, or if a tensor belongs to no module.
    """
    first = nodes[merge.inputs[0]]
    depths = Depths(first.tensors, first.config)
    held, rest = split((tensor for tensor in first.tensors if not is_unread(first, tensor)), merge.modules)
    problems = [
        f"{where}.modules.{module}: {first.name!r} has no tensors of it"
        for module, of in held.items()
        if not of
    ]
    if rest:
        problems.append(
            f"{where}.modules: none has {rest[0]}, one of {len(rest)} tensors that would be missing. Name their modules, or "
            f"`{REST}`, which has all others"
        )
    parts: list[Part] = []
    tensors: list[Tensor] = []
    for module, one in merge.modules.items():
        place = f"{where}.modules.{module}"
        count = max((depths.length(tensor) for tensor in held[module]), default=0)
        if any(layers != range(count) for layers in one.ranges.values()):
            problems.append(
                f"{place}.layers: modules are merged whole, and it has {count} layers; leave it out"
            )
        problems += without_effect(place, one, nodes)
        if problems:
            continue
        made, values = _joined(place, one, [nodes[model] for model in one.inputs], held[module])
        if isinstance(one, Linear) and is_nothing(one, values.values()):
            problems.append(f"{place}.models: all weights are zero, so the module would be zero")
        parts += _parts(name, f"{module.replace('.', '_')}-", one, made, values, max_bytes)
        tensors += made
    if problems:
        raise RecipeError(problems)
    return tuple(parts), tensors


def _joined(
    where: str, merge: Dense, inputs: list[Node], names: Iterable[str] | None = None
) -> tuple[list[Tensor], dict[str, Values]]:
    """Return the tensors of a merge of models of one form, and the parameters that each is computed with.

    Args:
        where: The key of the merge.
        merge: The merge.
        inputs: Its models.
        names: The tensors to merge; all if None.
    """
    tensors, values = [], {}
    first = inputs[0]
    depths = Depths(first.tensors, first.config)
    for name in first.tensors if names is None else names:
        if is_unread(first, name):
            continue
        planned = first.tensors[name][1]
        held = [node.tensors[name] for node in inputs]
        if merge.written_dtype:
            dtype = DTYPE_CODES[merge.written_dtype]
        else:
            dtype = promoted([of.dtype for _, of in held]) if merge.is_as_mergekit else planned.dtype
        origins = tuple(Origin(part.key, of.name) for part, of in held)
        tensors.append(Tensor(name, dtype, planned.shape, "merge", origins))
        values[name] = values_of(where, merge, name, depths.of(name))
    return tensors, values


def _parts(
    name: str, prefix: str, merge: Dense, tensors: list[Tensor], values: Mapping[str, Values], max_bytes: int
) -> tuple[Part, ...]:
    runs = enumerate(cut(tensors, max_bytes), start=1)
    return tuple(_part(name, f"{prefix}{index}", merge, run, values) for index, run in runs)


def _part(name: str, label: str, merge: Dense, run: tuple[Tensor, ...], values: Mapping[str, Values]) -> Part:
    computed = [tensor for tensor in run if tensor.action != "copy"]
    if not computed:
        return plan_part(name, label, TakeOver("merge"), run, COPY)
    settings: dict[str, bool | int | str] = {**merge.settings}
    if merge.is_as_mergekit:
        settings["semantics"] = SEMANTICS
        if merge.dtype:
            settings["dtype"] = DTYPE_CODES[merge.dtype]
    operation = MergeTensors(
        merge.method, settings, {tensor.name: values[tensor.name] for tensor in computed}
    )
    return plan_part(name, label, operation, run, AS_MERGEKIT_CODE if merge.is_as_mergekit else MERGE_CODE)


def promoted(dtypes: list[str]) -> str:
    """Return the dtype that holds the numbers of all dtypes, as torch has it: float32 for bfloat16 and float16."""
    if len(set(dtypes)) == 1:
        return dtypes[0]
    return "F64" if "F64" in dtypes else "F32"


def _with_dtype(config: dict[str, Any], written: set[str]) -> dict[str, Any]:
    """Return a configuration with the dtype of the tensors, if all have one; also where a module states another one."""
    names = {code: name for name, code in DTYPE_CODES.items()}
    name = names.get(min(written)) if len(written) == 1 else None
    if name is None:
        return config
    inner = {
        key: {**section, **{at: name for at in ("dtype", "torch_dtype") if at in section}}
        for key, section in sections(config).items()
        if key
    }
    return {**config, **inner, "dtype": name, "torch_dtype": name}


def _misfits(where: str, inputs: list[Node], *, stacked: bool, by_token: bool = False) -> list[str]:
    """Return why models cannot be merged, one line each."""
    problems = []
    first = inputs[0]
    expected = _form(first, stacked=stacked)
    if by_token:
        expected = form_of_rows(expected)
    for node in inputs[1:]:
        kinds = {_kind(first), _kind(node)}
        if len(kinds) > 1 and not kinds <= ONE_FORM:
            problems.append(
                f"{where}: {node.name!r} is of type {_kind(node)!r}, {first.name!r} of type {_kind(first)!r}"
            )
            continue
        problems += [
            f"{where}: {node.name!r} has {difference} as {first.name!r}: equal numbers mean different things in them"
            for difference in differences(node.config, first.config)
        ]
        form = _form(node, stacked=stacked)
        if by_token:
            form = form_of_rows(form)
        differing = [tensor for tensor in {**expected, **form} if expected.get(tensor) != form.get(tensor)]
        if differing:
            tensor = differing[0]
            more = f", and {len(differing) - 1} more tensors differ" if len(differing) > 1 else ""
            hint = ""
            if tensor == HEAD and (tensor not in form or tensor not in expected):
                hint = " (one model has an output head of its own, the other ties it to the embeddings)"
            elif is_per_token(tensor):
                crop = "" if stacked else ", and `vocabulary: crop` leaves out rows that not all have"
                hint = f" (their vocabularies differ; `tokenizer: {{source: union}}` lines them up{crop})"
            elif bias_setting(tensor):
                hint = f" (see {bias_setting(tensor)} in their config.json)"
            problems.append(
                f"{where}: {tensor} is {_show(form.get(tensor))} in {node.name!r} and {_show(expected.get(tensor))} in "
                f"{first.name!r}{hint}{more}"
            )
    return problems


def _form(node: Node, *, stacked: bool) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors; if layers are stacked, with one entry for all layers."""
    return {
        LAYER_NUMBER.sub("model.layers.*.", name) if stacked else name: shape
        for name, shape in node.form.items()
        if not is_unread(node, name)
    }


def _kind(node: Node) -> str:
    return str(node.config.get("model_type", ""))


def _show(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))
