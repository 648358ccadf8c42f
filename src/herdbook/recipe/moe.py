"""Mixtures of Experts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from herdbook.recipe.section import Dtype, Name, Section


class Expert(Section):
    """One expert of a Mixture of Experts."""

    model: Name = Field(description="the model whose MLP becomes the expert")
    prompts: list[str] = Field([], description="texts that this expert should get")
    negative_prompts: list[str] = Field([], description="texts that it should not get")


class Mixture(Section):
    """How a Mixture of Experts is put together."""

    base: Name = Field(description="gives attention, norms, embeddings, configuration and tokenizer")
    experts: list[Expert] = Field(min_length=2)
    gate: Literal["hidden", "hidden_avg", "cheap_embed", "random", "uniform_random"] = Field(
        "hidden", description="where the router's rows come from"
    )
    experts_per_token: int = Field(2, ge=1, description="how many experts each token passes")
    dtype: Dtype | None = Field(None, description="dtype of the result; the base's if left out")
    seed: int = Field(0, ge=0, description="for gate: random and uniform_random")


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
    if moe.gate not in {"random", "uniform_random"}:
        problems += [
            f"{where}.experts.{index}.prompts: gate {moe.gate!r} needs at least one prompt"
            for index, expert in enumerate(moe.experts)
            if not expert.prompts
        ]
        prompts = [(tuple(expert.prompts), tuple(expert.negative_prompts)) for expert in moe.experts]
        if any(expert.prompts for expert in moe.experts) and len(set(prompts)) == 1:
            problems.append(
                f"{where}.experts: all experts have the same prompts, so the router could not choose"
            )
    return problems
