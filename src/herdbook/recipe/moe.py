"""Mixtures of Experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from herdbook.architectures.mixtures import FamilyName
from herdbook.recipe.search import Search
from herdbook.recipe.section import Dtype, Name, Section, Semantics
from herdbook.recipe.tokenizer import Vocabulary

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
    """What a gate needs, and whether mergekit has it.

    Args:
        prompts: Whether rows are computed from the experts' prompts; otherwise they are drawn at random.
        layers: Whether the prompts pass through the base's layers; otherwise only their embeddings are used.
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
DEFAULT_GATE: Gate = "ridge"  # the best of all on held-out text (docs/routers.md)


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

    base: Name = Field(description="provides attention, norms, embeddings, configuration and tokenizer")
    experts: list[Expert] = Field(min_length=2)
    shared_experts: list[Expert] = Field(
        [], description="experts that process every token; their possible number depends on the family"
    )
    family: FamilyName | None = Field(
        None, description="the architecture to write; the first that fits the base if left out"
    )
    semantics: Semantics = Field(
        "native-1",
        description="which implementation to follow; mergekit-* reproduces mergekit's output bit for bit",
    )
    gate: Gate = Field(
        default_factory=lambda known: DEFAULT_GATE if known.get("semantics") == "native-1" else "hidden",
        description="how the router's rows are computed; if left out, ridge, or hidden under mergekit's semantics",
    )
    chat_template: bool = Field(
        False, description="apply the base's chat template to each prompt, as a user's message"
    )
    experts_per_token: int = Field(2, ge=1, description="how many experts each token is routed to")
    dtype: Dtype | None = Field(None, description="dtype of the result; the base's if left out")
    seed: int = Field(0, ge=0, description="for gate: random and uniform_random, and for noise_scale")
    tokenizer: Vocabulary | None = Field(
        None,
        description="the model whose tokenizer, chat template and generation config replace the base's; or how a vocabulary "
        "is made of those of all models",
    )
    layout: Literal["canonical", "fused"] = Field(
        "canonical",
        description="canonical: each expert's matrices under their own names, which every loader reads; fused: stacked "
        "as in transformers 5, which llama.cpp's converter and vLLM do not read",
    )

    @property
    def all_experts(self) -> tuple[Expert, ...]:
        """The routed experts, then the shared ones."""
        return (*self.experts, *self.shared_experts)

    @property
    def is_drawn(self) -> bool:
        """Whether the routers are drawn at random."""
        return not GATES[self.gate].prompts


class Moe(Section):
    """A Mixture of Experts whose router was never trained with its experts (a frankenMoE)."""

    moe: Mixture
    search: Search | None = None


def mixture_problems(where: str, moe: Mixture) -> list[str]:
    """Return the problems of a mixture, one line each; ``where`` is its key in the recipe."""
    problems = []
    if moe.experts_per_token > len(moe.experts):
        problems.append(
            f"{where}.experts_per_token: cannot choose {moe.experts_per_token} of {len(moe.experts)} experts"
        )
    if moe.semantics != "native-1" and not GATES[moe.gate].of_mergekit:
        problems.append(f"{where}.gate: mergekit has no gate {moe.gate!r}; leave out `semantics`")
    if moe.semantics != "native-1" and moe.chat_template:
        problems.append(f"{where}.chat_template: mergekit applies no chat template; leave out `semantics`")
    if moe.is_drawn:
        return problems
    problems += [
        f"{where}.experts.{index}.prompts: gate {moe.gate!r} needs at least one prompt"
        for index, expert in enumerate(moe.experts)
        if not expert.prompts
    ]
    return problems
