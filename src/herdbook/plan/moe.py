"""Planning a Mixture of Experts: a copy of the base without its MLPs, a copy of each expert's MLPs, and the routers.

The parts are cut by parent, so that each has one origin: a changed prompt rebuilds only the routers' part, a changed
expert only that expert's parts and the routers'. The fused layout, which stacks the experts, is cut by layers instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import Architecture, matrix_of
from herdbook.architectures.mixtures import MLP, expert_of
from herdbook.architectures.rows import is_per_token
from herdbook.plan.alignment import parts_of, row_tensor
from herdbook.plan.code import TOKENIZERS, Code
from herdbook.plan.configuration import mixture_config
from herdbook.plan.model import Origin, Part, Tensor
from herdbook.plan.moe_fit import BIAS, MATRICES, check
from herdbook.plan.operation import DrawRouters, ExpertScale, LineUp, MakeRouters, PerturbExperts, TakeOver
from herdbook.plan.part import plan_part
from herdbook.plan.sharding import cut
from herdbook.recipe.tokenizer import keeper
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.architectures.mixtures import Family, Place
    from herdbook.plan.alignment import Alignment
    from herdbook.plan.model import Node
    from herdbook.recipe import Expert, Mixture
    from herdbook.weights.record import Action

STEP = ("herdbook.steps.moe.step",)
DRAWN, FITTED, ROUTED, MERGEKITS, ALTERED, CAST = (
    f"herdbook.steps.moe.{name}"
    for name in ("random_gate", "ridge", "router", "mergekit_gates", "perturb", "cast")
)
ALIGNED = "herdbook.steps.aligned"
ROUTER_CODE = Code("routers", STEP, (DRAWN, FITTED, MERGEKITS, ALTERED, CAST, ALIGNED), TOKENIZERS)
RIDGE_CODE = Code("routers-ridge", STEP, (DRAWN, MERGEKITS, ALTERED, CAST, ALIGNED), TOKENIZERS)
MERGEKIT_CODE = Code("routers-mergekit", STEP, (DRAWN, ROUTED, ALTERED, CAST, ALIGNED), TOKENIZERS)
WITHOUT_TORCH = (ALIGNED, "herdbook.weights.tensors", "torch")
DRAWN_CODE = Code("routers-drawn", STEP, (ROUTED, MERGEKITS, ALTERED, CAST, *WITHOUT_TORCH))
ALTER_CODE = Code("experts-changed", STEP, (DRAWN, ROUTED, MERGEKITS, ALIGNED))
# Tensors that are copied under a new name, stacked or zero.
TAKEN_CODE = Code("experts", STEP, (DRAWN, ROUTED, MERGEKITS, ALTERED, CAST, *WITHOUT_TORCH))
CAST_CODE = Code("experts-cast", STEP, (DRAWN, ROUTED, MERGEKITS, ALTERED, ALIGNED))
# Tensors with a row for each token; the others of the part are copied, cast or zero.
ROWS_CODE = Code("rows", STEP, (DRAWN, ROUTED, MERGEKITS, ALTERED))


def plan_moe(
    name: str, moe: Mixture, nodes: Mapping[str, Node], max_bytes: int, alignment: Alignment | None = None
) -> tuple[tuple[Part, ...], dict[str, Any], list[str]]:
    """Return the parts of a Mixture of Experts, its configuration, and warnings.

    Raises:
        RecipeError: If the experts do not fit the base; all misfits are named.
    """
    family, warnings = check(name, moe, nodes, alignment)
    planned = _Mixture(name, moe, nodes, family, max_bytes, alignment)
    config = mixture_config(
        family,
        planned.base.config,
        experts=len(moe.experts),
        experts_per_token=moe.experts_per_token,
        shared=len(moe.shared_experts),
        dtype={code: dtype for dtype, code in DTYPE_CODES.items()}[planned.dtype],
        keep_window=moe.semantics == "native-1",
        tokens_from=nodes[keeper(moe.tokenizer, moe.base)].config,
    )
    if alignment:
        config["vocab_size"] = alignment.rows
        models = [node.name for node in planned.models]
        warnings += alignment.lacking(f"models.{name}.moe", models, moe.base, moe.base)
    return tuple(planned.parts()), config, warnings


class _Mixture:
    def __init__(
        self,
        name: str,
        moe: Mixture,
        nodes: Mapping[str, Node],
        family: Family,
        max_bytes: int,
        alignment: Alignment | None,
    ) -> None:
        self.name, self.moe, self.nodes, self.family, self.max_bytes = name, moe, nodes, family, max_bytes
        self.base = nodes[moe.base]
        models = list(dict.fromkeys((moe.base, *(expert.model for expert in moe.all_experts))))
        self.models = [nodes[model] for model in models]
        self.rows = alignment.rows if alignment else 0
        self.runs = alignment.runs(models, moe.base, moe.base) if alignment else None
        self.shape = Architecture.of(self.base.config, moe.base)
        self.dtype = DTYPE_CODES[moe.dtype] if moe.dtype else _dtype_of(self.base, moe)

    def parts(self) -> Iterator[Part]:
        yield from self._cut("base", [*self._kept(), *self._zero_biases()])
        if self.moe.layout == "fused":
            yield from self._cut("experts", list(self._fused()))
        else:
            for index, expert in enumerate(self.moe.experts):
                yield from self._cut(f"expert{index + 1}", list(self._expert(index, expert)))
        for expert in self.moe.shared_experts:
            yield from self._cut("shared", list(self._expert("shared", expert)))
        yield self._routers()

    def _cut(self, label: str, tensors: list[Tensor]) -> Iterator[Part]:
        for number, run in enumerate(cut(tensors, self.max_bytes), start=1):
            yield self._taken(f"{label}-{number}", run)

    def _scales(self, run: tuple[Tensor, ...]) -> dict[str, ExpertScale]:
        """Return the changes of the experts in a run of tensors, by their place."""
        names = [name for tensor in run for name in tensor.slices or (tensor.name,)]
        places = {location[0] if (location := expert_of(name)) else "shared" for name in names}
        experts: list[tuple[Place, Expert]] = [*enumerate(self.moe.experts)]
        experts += [("shared", expert) for expert in self.moe.shared_experts]
        return {
            str(place): ExpertScale(expert.noise_scale, expert.residual_scale)
            for place, expert in experts
            if place in places
        }

    def _take(self, node: Node, tensor: str, new_name: str) -> Tensor:
        part, planned = node.tensors[tensor]
        action: Action = "copy" if planned.dtype == self.dtype else "cast"
        return Tensor(new_name, self.dtype, planned.shape, action, (Origin(part.key, tensor),))

    def _kept(self) -> Iterator[Tensor]:
        for tensor in self.base.tensors:
            bias = BIAS.search(tensor)
            dropped = bias and bias[1] not in self.family.biases
            if matrix_of(tensor) not in MATRICES and not dropped and not tensor.endswith("inv_freq"):
                yield (
                    self._by_token(tensor) if is_per_token(tensor) else self._take(self.base, tensor, tensor)
                )

    def _by_token(self, name: str) -> Tensor:
        """Return a tensor with a row for each token: the base's, with rows of other models for tokens that it does not have."""
        taken = self._take(self.base, name, name)
        if self.runs is None:
            return taken
        used = {place for run in self.runs for place, _ in parts_of(run)}
        origins = [
            Origin(node.tensors[name][0].key, name) if place in used else taken.origins[0]
            for place, node in enumerate(self.models)
        ]
        return row_tensor(taken, self.runs, self.rows, origins)

    def _zero_biases(self) -> Iterator[Tensor]:
        """Yield biases of zero where the mixture's class requires biases and the base has none."""
        if not self.family.needs_biases:
            return
        for layer in range(self.shape.layers):
            for projection in self.family.biases:
                inside = f"model.layers.{layer}.self_attn.{projection}"
                if f"{inside}.bias" not in self.base.tensors:
                    rows = self.base.tensors[f"{inside}.weight"][1].shape[0]
                    yield Tensor(f"{inside}.bias", self.dtype, (rows,), "zeros")

    def _expert(self, place: Place, expert: Expert) -> Iterator[Tensor]:
        node = self.nodes[expert.model]
        for layer in range(self.shape.layers):
            for matrix in MLP:
                tensor = self._take(
                    node,
                    f"model.layers.{layer}.mlp.{matrix}.weight",
                    self.family.expert(layer, place, matrix),
                )
                altered = expert.noise_scale or (
                    matrix == "down_proj" and expert.residual_scale not in {None, 1}
                )
                yield replace(tensor, action="alter") if altered else tensor

    def _fused(self) -> Iterator[Tensor]:
        """Yield gate and up projection of all experts of a layer in one tensor, and the down projections in another."""
        single = {
            tensor.name: tensor
            for place, expert in enumerate(self.moe.experts)
            for tensor in self._expert(place, expert)
        }
        count, inner, hidden = len(self.moe.experts), self.shape.intermediate, self.shape.hidden
        for layer in range(self.shape.layers):
            for fused, matrices, shape in (
                ("gate_up_proj", MLP[:2], (count, 2 * inner, hidden)),
                ("down_proj", MLP[2:], (count, hidden, inner)),
            ):
                slices = [
                    single[self.family.expert(layer, place, m)] for place in range(count) for m in matrices
                ]
                actions = {tensor.action for tensor in slices} - {"copy"}
                action: Action = "alter" if "alter" in actions else "cast" if actions else "stack"
                yield Tensor(
                    f"model.layers.{layer}.mlp.experts.{fused}",
                    self.dtype,
                    shape,
                    action,
                    tuple(origin for tensor in slices for origin in tensor.origins),
                    tuple(tensor.name for tensor in slices),
                )

    def _taken(self, label: str, run: tuple[Tensor, ...]) -> Part:
        actions = {tensor.action for tensor in run}
        if self.runs is not None and "rows" in actions:
            rows = {tensor.name: self.runs for tensor in run if tensor.action == "rows"}
            return plan_part(self.name, label, LineUp(rows), run, ROWS_CODE)
        if "alter" in actions:
            return plan_part(
                self.name, label, PerturbExperts(self._scales(run), self.moe.seed), run, ALTER_CODE
            )
        code = CAST_CODE if "cast" in actions else TAKEN_CODE
        return plan_part(self.name, label, TakeOver("moe"), run, code)

    def _routers(self) -> Part:
        moe, family, hidden = self.moe, self.family, self.shape.hidden
        fused = moe.layout == "fused"
        tensors = []
        for layer in range(self.shape.layers):
            routed = (len(moe.experts), hidden)
            tensors.append(Tensor(family.router(layer, fused=fused), self.dtype, routed, "router"))
            if family.shared_gate:
                shared = (len(moe.shared_experts), hidden)
                tensors.append(Tensor(family.shared_router(layer), self.dtype, shared, "router"))
        run = tuple(tensors)
        if moe.is_drawn:
            draw = DrawRouters(moe.gate, moe.seed, moe.chat_template)
            return plan_part(self.name, "routers", draw, run, DRAWN_CODE)
        as_mergekit = moe.semantics != "native-1"
        experts = moe.all_experts if family.shared_gate else moe.experts
        prompts = tuple((tuple(expert.prompts), tuple(expert.negative_prompts)) for expert in experts)
        make = MakeRouters(moe.gate, prompts, self.base.key, moe.chat_template, as_mergekit)
        # Describe only code that is used: a release records no other code, and its keys are recomputed from that record.
        native = RIDGE_CODE if moe.gate == "ridge" else ROUTER_CODE
        return plan_part(self.name, "routers", make, run, MERGEKIT_CODE if as_mergekit else native)


def _dtype_of(node: Node, moe: Mixture) -> str:
    declared = node.config.get("dtype") or node.config.get("torch_dtype")
    if moe.semantics != "native-1" and declared in DTYPE_CODES:
        return DTYPE_CODES[declared]
    sizes: dict[str, int] = {}
    for _, tensor in node.tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size_bytes
    return max(sizes, key=lambda dtype: (sizes[dtype], dtype))
