"""Planning a Mixture of Experts: a copy of the base without its MLPs, a copy of each expert's MLPs, and the routers.

The parts are cut by parent, so that each has one origin: a changed prompt rebuilds only the routers' part, a changed
expert only that expert's parts and the routers'. The fused layout, which stacks the experts, is cut by layers instead.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import ONE_FORM, Architecture, layer_of, matrix_of
from herdbook.architectures.form import bias_setting
from herdbook.architectures.gguf_forms import EXPERT_COUNTS
from herdbook.architectures.meaning import differences, is_tied
from herdbook.architectures.mixtures import BY_MODEL_TYPE, FAMILIES, MLP, expert_of, fitting, window_of
from herdbook.errors import RecipeError
from herdbook.plan.alignment import PER_TOKEN, parts_of, row_tensor
from herdbook.plan.code import TOKENIZERS, Code
from herdbook.plan.configuration import mixture_config
from herdbook.plan.model import Origin, Part, Tensor
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
    from herdbook.plan.operation import Action
    from herdbook.recipe import Expert, Mixture

MATRICES = {f"mlp.{name}": name for name in MLP}
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
# An expert's vocabulary may differ by as many tokens, which its tuning added; beyond that, it is a different vocabulary.
ADDED_TOKENS = 1024

BIAS = re.compile(r"\.self_attn\.(\w+_proj)\.bias$")


def plan_moe(
    name: str, moe: Mixture, nodes: Mapping[str, Node], max_bytes: int, alignment: Alignment | None = None
) -> tuple[tuple[Part, ...], dict[str, Any], list[str]]:
    """Return the parts of a Mixture of Experts, its configuration, and warnings.

    Raises:
        RecipeError: If the experts do not fit the base; all misfits are named.
    """
    family, warnings = _check(name, moe, nodes, alignment)
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
                yield self._by_token(tensor) if tensor in PER_TOKEN else self._take(self.base, tensor, tensor)

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


def _check(
    name: str, moe: Mixture, nodes: Mapping[str, Node], alignment: Alignment | None
) -> tuple[Family, list[str]]:
    """Check that the base and the experts fit each other and the family; return the family, and warnings."""
    where = f"models.{name}.moe"
    checks = _Checks(where, moe, nodes, aligned=alignment is not None)
    checks.itself_a_mixture()
    if checks.problems:
        raise RecipeError(checks.problems)
    family = checks.family()
    if family:
        checks.base(family)
        for key, experts in (("experts", moe.experts), ("shared_experts", moe.shared_experts)):
            for index, expert in enumerate(experts):
                checks.expert(f"{where}.{key}.{index}", expert)
        if alignment:
            checks.rows(alignment)
        elif keeper(moe.tokenizer, moe.base) != moe.base:
            checks.tokenizer()
        if moe.chat_template:
            checks.chat_template()
    if checks.problems or family is None:
        raise RecipeError(checks.problems)
    return family, checks.warnings


class _Checks:
    def __init__(self, where: str, moe: Mixture, nodes: Mapping[str, Node], *, aligned: bool) -> None:
        self.where, self.moe, self.nodes, self.aligned = where, moe, nodes, aligned
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._base = nodes[moe.base]
        self._lenient = moe.semantics != "native-1"

    def misfit(self, line: str) -> None:
        """Add a misfit that mergekit accepts: a problem by default, a warning under mergekit's semantics."""
        if self._lenient:
            self.warnings.append(f"{line} (mergekit does not check this)")
        else:
            self.problems.append(f"{line}. To build it all the same, set `semantics: mergekit-0.1.5`.")

    def itself_a_mixture(self) -> None:
        members = [("base", self.moe.base)] + [
            (f"{key}.{index}", expert.model)
            for key, experts in (("experts", self.moe.experts), ("shared_experts", self.moe.shared_experts))
            for index, expert in enumerate(experts)
        ]
        for key, model in members:
            config = self.nodes[model].config
            if config.get("model_type") in BY_MODEL_TYPE or any(count in config for count in EXPERT_COUNTS):
                self.problems.append(
                    f"{self.where}.{key}: {model!r} is itself a Mixture of Experts ({config.get('model_type')}); a "
                    "mixture is made of dense models. Name the dense models that it was made from."
                )

    def family(self) -> Family | None:
        moe, shared = self.moe, len(self.moe.shared_experts)
        kind = self._base.config.get("model_type", "")
        family = FAMILIES[moe.family] if moe.family else fitting(kind, shared)
        supported = sorted({source for f in FAMILIES.values() for source in f.sources})
        if kind not in supported:
            self.problems.append(
                f"{self.where}.base: {moe.base!r} is of type {kind!r}; supported types are {', '.join(supported)}"
            )
            return None
        if family is None:
            options = [f"{f.name} ({_counts(f)})" for f in FAMILIES.values() if kind in f.sources]
            self.problems.append(
                f"{self.where}.shared_experts: {shared} given; families for a base of type {kind!r} are "
                f"{', '.join(options)}"
            )
            return None
        if kind not in family.sources:
            self.problems.append(
                f"{self.where}.family: {family.name} needs a base of type {', '.join(family.sources)}; {moe.base!r} is of "
                f"type {kind!r}"
            )
        if shared not in family.shared_counts:
            self.problems.append(
                f"{self.where}.shared_experts: {family.name} has {_counts(family)}, {shared} given"
            )
        if moe.layout == "fused" and not family.fused:
            self.problems.append(f"{self.where}.layout: {family.name} has no fused layout")
        if family.shared_gate and not moe.is_drawn:
            self.problems += [
                f"{self.where}.shared_experts.{index}.prompts: the shared expert of {family.name} has a gate of its own, "
                f"and gate {moe.gate!r} needs at least one prompt for it"
                for index, expert in enumerate(moe.shared_experts)
                if not expert.prompts
            ]
        return None if self.problems else family

    def base(self, family: Family) -> None:
        where = f"{self.where}.base: {self.moe.base!r}"
        biases = {match[1]: t for t in sorted(self._base.form) if (match := BIAS.search(t))}
        lost = [t for projection, t in biases.items() if projection not in family.biases]
        if lost:
            kind = self._base.config["model_type"]
            able = [f.name for f in FAMILIES.values() if kind in f.sources and set(biases) <= set(f.biases)]
            hint = f"; {', '.join(able)} can" if able else ""
            self.misfit(f"{where} has biases ({lost[0]}) that {family.name} cannot represent{hint}")
        foreign = [t for t in self._base.form if ".mlp." in t and matrix_of(t) not in MATRICES]
        if foreign:
            self.problems.append(f"{where}: its MLPs contain {foreign[0]}, which an expert cannot contain")
        window = window_of(self._base.config)
        if window and (self._lenient or not family.window):
            self.warnings.append(
                f"{where}: its attention has a sliding window of {window} tokens, which the mixture does not keep"
            )

    def expert(self, where: str, expert: Expert) -> None:
        base, node = self._base, self.nodes[expert.model]
        where = f"{where}: {expert.model!r}"
        shape, other = Architecture.of(base.config, self.moe.base), Architecture.of(node.config, expert.model)
        if other.model_type != shape.model_type and not {other.model_type, shape.model_type} <= ONE_FORM:
            self.problems.append(f"{where} is of type {other.model_type!r}, the base of {shape.model_type!r}")
            return
        if other.layers != shape.layers:
            self.problems.append(f"{where} has {other.layers} layers, the base {shape.layers}")
            return
        theirs, ours = _layer_shapes(node), _layer_shapes(base)
        # The MLPs, which the mixture takes, must fit; a difference elsewhere shows that the expert had another base.
        for taken in (True, False):
            differing = sorted(
                t
                for t in ours.keys() | theirs.keys()
                if (".mlp." in t) is taken and ours.get(t) != theirs.get(t)
            )
            if differing:
                t = differing[0]
                line = (
                    f"{where}: {t} is {_show(theirs.get(t))}, in the base {_show(ours.get(t))} "
                    f"({len(differing)} tensors differ)"
                )
                if taken:
                    self.problems.append(line)
                else:
                    self.misfit(line)
                return
        differing = sorted(t for t in node.form.keys() ^ base.form.keys() if BIAS.search(t))
        if differing:
            t = differing[0]
            self.misfit(
                f"{where}: {t} is {_show(node.form.get(t))}, in the base {_show(base.form.get(t))} ({bias_setting(t)}; "
                f"{len(differing)} biases differ)"
            )
        for setting in differences(node.config, base.config):
            self.misfit(
                f"{where} has {setting} as the base: its matrices mean something else than in the base"
            )
        if is_tied(node.config) != is_tied(base.config):
            tied = "tied" if is_tied(node.config) else "untied"
            self.misfit(f"{where} has an output head that is {tied} to its embeddings, unlike the base's")
        difference = 0 if self.aligned else other.vocabulary - shape.vocabulary
        if abs(difference) > ADDED_TOKENS:
            self.misfit(
                f"{where} has a vocabulary of {other.vocabulary}, the base of {shape.vocabulary}: "
                "it was trained on different tokens and would not understand the base's"
            )
        elif difference:
            self.warnings.append(
                f"{where} has {abs(difference)} tokens {'more' if difference > 0 else 'fewer'} than "
                "the base; the merge keeps the base's"
            )

    def rows(self, alignment: Alignment) -> None:
        models = list(dict.fromkeys((self.moe.base, *(expert.model for expert in self.moe.all_experts))))
        self.problems += alignment.problems(self.where, self.nodes, models)
        self.problems += [
            f"{self.where}.tokenizer: {name!r} has no {tensor}, and rows of it may be needed"
            for name in models
            for tensor in PER_TOKEN
            if tensor in self._base.form and tensor not in self.nodes[name].form
        ]

    def tokenizer(self) -> None:
        name = keeper(self.moe.tokenizer, self.moe.base)
        rows = self._base.config["vocab_size"]
        tokens = self.nodes[name].config.get("vocab_size", rows)
        if tokens > rows:
            self.problems.append(
                f"{self.where}.tokenizer: {name!r} has {tokens} tokens, but the base has embeddings for only {rows}"
            )

    def chat_template(self) -> None:
        # The routers are made with the base's, and the report on them reads the prompts with the mixture's.
        for name in dict.fromkeys((self.moe.base, keeper(self.moe.tokenizer, self.moe.base))):
            if not self.nodes[name].chat_template:
                self.problems.append(
                    f"{self.where}.chat_template: the tokenizer of {name!r} has no chat template; leave `chat_template` out"
                )


def _layer_shapes(node: Node) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's layers and last norm: all that is independent of the vocabulary, without biases."""
    return {
        name: shape
        for name, shape in node.form.items()
        if (layer_of(name) is not None and not BIAS.search(name) and not name.endswith("inv_freq"))
        or name == "model.norm.weight"
    }


def _counts(family: Family) -> str:
    counts = " or ".join("no" if count == 0 else str(count) for count in family.shared_counts)
    return f"{counts} shared {'expert' if family.shared_counts == (1,) else 'experts'}"


def _show(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {list(shape)}"
