"""Mixtures of Experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from herdbook.architectures.mixtures import FamilyName
from herdbook.recipe.section import Dtype, Name, Section, Semantics

Gate = Literal[
    "hidden",
    "hidden_avg",
    "cheap_embed",
    "random",
    "uniform_random",
    "router_input",
    "router_input_avg",
    "centred",
    "ridge",
]


@dataclass(frozen=True)
class GateKind:
    """What a gate needs, and who knows it.

    Args:
        prompts: Whether rows are made of the experts' prompts; else they are drawn at random.
        layers: Whether the prompts pass through the base's layers; else their embeddings are all that counts.
        of_mergekit: Whether mergekit has it too.
    """

    prompts: bool = True
    layers: bool = True
    of_mergekit: bool = False


GATES: dict[Gate, GateKind] = {
    "hidden": GateKind(of_mergekit=True),
    "hidden_avg": GateKind(of_mergekit=True),
    "cheap_embed": GateKind(layers=False, of_mergekit=True),
    "random": GateKind(prompts=False, layers=False, of_mergekit=True),
    "uniform_random": GateKind(prompts=False, layers=False, of_mergekit=True),
    "router_input": GateKind(),
    "router_input_avg": GateKind(),
    "centred": GateKind(),
    "ridge": GateKind(),
}
MERGEKIT_GATES = tuple(gate for gate, kind in GATES.items() if kind.of_mergekit)
DRAWN_GATES = tuple(gate for gate, kind in GATES.items() if not kind.prompts)
DEFAULT_GATE: Gate = "ridge"  # of all, it did best on held-out text (docs/routers.md)


class Expert(Section):
    """One expert of a Mixture of Experts."""

    model: Name = Field(description="the model whose MLP becomes the expert")
    prompts: list[str] = Field([], description="texts that this expert should get")
    negative_prompts: list[str] = Field([], description="texts that it should not get")
    noise_scale: float | None = Field(
        None, gt=0, description="add noise of this standard deviation to the expert's matrices"
    )
    residual_scale: float | None = Field(None, description="multiply the expert's output (down_proj) by this")


class Mixture(Section):
    """How a Mixture of Experts is put together."""

    base: Name = Field(description="gives attention, norms, embeddings, configuration and tokenizer")
    experts: list[Expert] = Field(min_length=2)
    shared_experts: list[Expert] = Field(
        [], description="experts that every token passes; how many a family can have differs"
    )
    family: FamilyName | None = Field(
        None, description="which architecture is written; the first that fits the base if left out"
    )
    semantics: Semantics = Field(
        "native-1", description="whose formulas are meant, where they differ; mergekit's give its bits"
    )
    gate: Gate = Field(
        default_factory=lambda known: DEFAULT_GATE if known.get("semantics") == "native-1" else "hidden",
        description="where the router's rows come from; ridge if left out, hidden (as mergekit has it) under its semantics",
    )
    chat_template: bool = Field(
        False, description="put each prompt through the base's chat template, as a user's message"
    )
    experts_per_token: int = Field(2, ge=1, description="how many experts each token passes")
    dtype: Dtype | None = Field(None, description="dtype of the result; the base's if left out")
    seed: int = Field(0, ge=0, description="for gate: random and uniform_random, and for noise_scale")
    tokenizer: Name | None = Field(
        None, description="the model whose tokenizer, chat template and generation config are taken"
    )
    layout: Literal["canonical", "fused"] = Field(
        "canonical",
        description="canonical: an expert's matrices by their own names, which every loader reads; fused: as "
        "transformers 5 holds them, which llama.cpp's converter and vLLM do not read",
    )

    @property
    def all_experts(self) -> tuple[Expert, ...]:
        """The experts that are routed, and then the shared ones."""
        return (*self.experts, *self.shared_experts)

    @property
    def is_drawn(self) -> bool:
        """Whether the routers are drawn at random."""
        return not GATES[self.gate].prompts


class Moe(Section):
    """A Mixture of Experts whose router was never trained with its experts (a frankenMoE)."""

    moe: Mixture


def mixture_problems(where: str, moe: Mixture) -> list[str]:
    """Return what is wrong with a mixture, one line each; ``where`` is its place in the recipe."""
    problems = []
    if moe.experts_per_token > len(moe.experts):
        problems.append(
            f"{where}.experts_per_token: {moe.experts_per_token} of {len(moe.experts)} experts cannot be chosen"
        )
    if moe.semantics != "native-1" and not GATES[moe.gate].of_mergekit:
        problems.append(f"{where}.gate: mergekit knows no gate {moe.gate!r}; leave out `semantics`")
    if moe.semantics != "native-1" and moe.chat_template:
        problems.append(f"{where}.chat_template: mergekit applies none; leave out `semantics`")
    if moe.is_drawn:
        return problems
    problems += [
        f"{where}.experts.{index}.prompts: gate {moe.gate!r} needs at least one prompt"
        for index, expert in enumerate(moe.experts)
        if not expert.prompts
    ]
    prompts = [(tuple(expert.prompts), tuple(expert.negative_prompts)) for expert in moe.experts]
    if any(expert.prompts for expert in moe.experts) and len(set(prompts)) == 1:
        problems.append(f"{where}.experts: all experts have the same prompts, so the router could not choose")
    return problems
