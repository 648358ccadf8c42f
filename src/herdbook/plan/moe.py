"""Planning a Mixture of Experts: a copy of the base without its MLPs, a copy of each expert's MLPs, and the routers.

The parts are cut by parent, so that each has one origin: another prompt re-makes the routers' part only, another
expert that expert's parts and the routers'. Tensor names are Mixtral's canonical ones, which transformers 4 and 5,
vLLM and llama.cpp's converter read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.errors import RecipeError
from herdbook.key import COPY, Code, digest
from herdbook.lock import DTYPE_CODES
from herdbook.plan.architecture import SUPPORTED, Architecture, layer_of, matrix_of
from herdbook.plan.cut import cut
from herdbook.plan.derive import spell
from herdbook.plan.model import INTERPRETER_BYTES, TORCH_BYTES, Origin, Part, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan.model import Node
    from herdbook.recipe import Mixture

# A dense MLP's matrices, and what Mixtral calls them.
EXPERT_NAMES = {"mlp.gate_proj": "w1", "mlp.down_proj": "w2", "mlp.up_proj": "w3"}
ROUTER_CODE = Code(
    modules=("herdbook.moe.router", "herdbook.forward", "herdbook.moe.step"),
    packages=("tokenizers", "torch", "transformers"),
)
CAST_CODE = Code(modules=("herdbook.moe.cast",), packages=("torch",))
ADDED_TOKENS = (
    1024  # an expert's vocabulary may differ by tokens that its tuning added; by more, it is another one
)


def plan_moe(
    name: str, moe: Mixture, nodes: Mapping[str, Node], max_bytes: int
) -> tuple[tuple[Part, ...], list[str]]:
    """Return the parts of a Mixture of Experts, and warnings.

    Raises:
        RecipeError: If the experts do not fit the base; all misfits are named.
    """
    base = nodes[moe.base]
    shape = Architecture.of(base.config, moe.base)
    warnings = _check(name, moe, nodes, shape)
    dtype = DTYPE_CODES[moe.dtype] if moe.dtype else _dtype_of(base)

    def take(node: Node, tensor: str, new_name: str) -> Tensor:
        part, planned = node.tensors[tensor]
        action = "copy" if planned.dtype == dtype else "cast"
        return Tensor(new_name, dtype, planned.shape, action, (Origin(part.key, tensor),))

    kept = [take(base, t, t) for t in base.tensors if matrix_of(t) not in EXPERT_NAMES]
    parts = [_copied(name, f"base-{i}", run) for i, run in enumerate(cut(kept, max_bytes), start=1)]
    for index, expert in enumerate(moe.experts):
        node = nodes[expert.model]
        mlp = [
            take(
                node,
                t,
                f"model.layers.{layer_of(t)}.block_sparse_moe.experts.{index}.{EXPERT_NAMES[matrix]}.weight",
            )
            for t in node.tensors
            if (matrix := matrix_of(t)) in EXPERT_NAMES
        ]
        runs = cut(mlp, max_bytes)
        parts += [_copied(name, f"expert{index + 1}-{i}", run) for i, run in enumerate(runs, start=1)]
    parts.append(_routers(name, moe, base, shape, dtype))
    return tuple(parts), warnings


def _copied(name: str, label: str, run: tuple[Tensor, ...]) -> Part:
    cast = any(tensor.action == "cast" for tensor in run)
    code = (CAST_CODE if cast else COPY).describe()
    content = {"operation": "moe", "parameters": {}, "code": code, "tensors": spell(run)}
    largest = max(tensor.elements for tensor in run)
    memory = TORCH_BYTES + 12 * largest if cast else INTERPRETER_BYTES
    return Part(name, label, "moe", digest(content), run, memory_bytes=memory, code=code)


def _routers(name: str, moe: Mixture, base: Node, shape: Architecture, dtype: str) -> Part:
    tensors = tuple(
        Tensor(
            f"model.layers.{layer}.block_sparse_moe.gate.weight",
            dtype,
            (len(moe.experts), shape.hidden),
            "router",
        )
        for layer in range(shape.layers)
    )
    drawn = moe.gate in {"random", "uniform_random"}
    prompts = [] if drawn else [[list(e.prompts), list(e.negative_prompts)] for e in moe.experts]
    parameters: dict[str, Any] = {
        "gate": moe.gate,
        "prompts": prompts,
        **({"seed": moe.seed} if drawn else {}),
    }
    code = ROUTER_CODE.describe()
    content = {
        "operation": "moe",
        "parameters": parameters,
        "code": code,
        "tensors": spell(tensors),
        "base": None if drawn else base.key,
    }
    layer = 4 * sum(planned.elements for t, (_, planned) in base.tensors.items() if layer_of(t) == 0)
    table = 4 * shape.vocabulary * shape.hidden
    folders = () if drawn else (base.key,)
    return Part(
        name,
        "routers",
        "moe",
        digest(content),
        tensors,
        parameters,
        folders,
        memory_bytes=TORCH_BYTES + 2 * layer + 2 * table,
        code=code,
    )


def _dtype_of(node: Node) -> str:
    sizes: dict[str, int] = {}
    for _, tensor in node.tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size_bytes
    return max(sizes, key=lambda dtype: (sizes[dtype], dtype))


def _check(name: str, moe: Mixture, nodes: Mapping[str, Node], shape: Architecture) -> list[str]:
    problems, warnings = [], []
    where = f"models.{name}.moe"
    if shape.model_type not in SUPPORTED:
        problems.append(
            f"{where}.base: {moe.base!r} is of type {shape.model_type!r}; supported are {', '.join(SUPPORTED)}"
        )
    biased = [t for t in nodes[moe.base].tensors if t.endswith("_proj.bias")]
    if biased:
        problems.append(
            f"{where}.base: {moe.base!r} has attention biases ({biased[0]}), which a Mixtral cannot hold"
        )
    wanted = {
        t: planned.shape
        for t, (_, planned) in nodes[moe.base].tensors.items()
        if matrix_of(t) in EXPERT_NAMES
    }
    for index, expert in enumerate(moe.experts):
        place = f"{where}.experts.{index}"
        node = nodes[expert.model]
        other = Architecture.of(node.config, expert.model)
        if other.model_type not in SUPPORTED:
            problems.append(f"{place}: {expert.model!r} is of type {other.model_type!r}")
            continue
        found = {t: planned.shape for t, (_, planned) in node.tensors.items() if matrix_of(t) in EXPERT_NAMES}
        if other.layers != shape.layers:
            problems.append(f"{place}: {expert.model!r} has {other.layers} layers, the base {shape.layers}")
        else:
            differing = sorted(t for t in wanted.keys() | found.keys() if wanted.get(t) != found.get(t))
            if differing:
                t = differing[0]
                problems.append(
                    f"{place}: {expert.model!r}: {t} has shape {_show(found.get(t))}, "
                    f"the base's {_show(wanted.get(t))} ({len(differing)} tensors differ)"
                )
        difference = other.vocabulary - shape.vocabulary
        if abs(difference) > ADDED_TOKENS:
            problems.append(
                f"{place}: {expert.model!r} has a vocabulary of {other.vocabulary}, the base of {shape.vocabulary}: "
                "it was trained on other tokens and would not understand the base's"
            )
        elif difference:
            warnings.append(
                f"{place}: {expert.model!r} has {abs(difference)} tokens {'more' if difference > 0 else 'fewer'} than "
                "the base; the merge keeps the base's"
            )
    if problems:
        raise RecipeError(problems)
    return warnings


def _show(shape: tuple[int, ...] | None) -> str:
    return "nowhere" if shape is None else str(list(shape))
