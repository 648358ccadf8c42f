"""Whether base and experts of a Mixture of Experts fit each other, and its family."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from herdbook.architectures.dense import ONE_FORM, Architecture, layer_of, matrix_of
from herdbook.architectures.form import bias_setting
from herdbook.architectures.meaning import differences, is_tied
from herdbook.architectures.mixtures import BY_MODEL_TYPE, FAMILIES, MLP, fitting, kept_window, window_of
from herdbook.architectures.rows import is_per_token
from herdbook.errors import RecipeError
from herdbook.recipe.tokenizer import keeper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.architectures.mixtures import Family
    from herdbook.plan.alignment import Alignment
    from herdbook.plan.model import Node
    from herdbook.recipe import Expert, Mixture

MATRICES = {f"mlp.{name}": name for name in MLP}
# An expert's vocabulary may differ by as many tokens, which its tuning added; beyond that, it is a different vocabulary.
ADDED_TOKENS = 1024
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
BIAS = re.compile(r"\.self_attn\.(\w+_proj)\.bias$")


def check(
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
    checks.prompts()
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
            self.problems.append(f"{line}. To build it nevertheless, set `semantics: mergekit-0.1.5`.")

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
        if window and (self._lenient or not kept_window(family, self._base.config)):
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
        # The MLPs, which the mixture takes, must fit; a difference elsewhere shows that the expert has another base.
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

    def prompts(self) -> None:
        """Check that the prompts of the experts differ."""
        prompts = {(tuple(expert.prompts), tuple(expert.negative_prompts)) for expert in self.moe.experts}
        if len(prompts) == 1 and not self.moe.is_drawn:
            self.misfit(
                f"{self.where}.experts: all have the same prompts, so the router cannot distinguish them"
            )

    def rows(self, alignment: Alignment) -> None:
        models = list(dict.fromkeys((self.moe.base, *(expert.model for expert in self.moe.all_experts))))
        self.problems += alignment.problems(self.where, self.nodes, models)
        self.problems += [
            f"{self.where}.tokenizer: {name!r} has no {tensor}, and rows of it may be needed"
            for name in models
            for tensor in self._base.form
            if is_per_token(tensor) and tensor not in self.nodes[name].form
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
