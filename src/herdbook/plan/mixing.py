"""How parts of a Mixture of Experts are made, besides copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from herdbook.plan.interface import Interface

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan.interface import Parameters, Rule
    from herdbook.recipe.moe import Gate


@dataclass(frozen=True)
class ExpertScale:
    """The change of an expert's matrices: the noise's standard deviation, and the factor of the expert's output."""

    noise: float | None
    residual: float | None


@dataclass(frozen=True)
class PerturbExperts(Interface):
    """Noise is added to experts' matrices, or they are multiplied by a factor.

    Args:
        scales: The changes by the expert's place: its number, or ``shared``.
        seed: Seed of the noise.
    """

    rule: ClassVar[Rule] = "moe"
    scales: Mapping[str, ExpertScale]
    seed: int

    @property
    def parameters(self) -> Parameters:
        """Scales and seed."""
        scales = {place: [scale.noise, scale.residual] for place, scale in self.scales.items()}
        return {"scales": scales, "seed": self.seed}


@dataclass(frozen=True)
class LineUp(Interface):
    """Tensors with a row for each token are put together of rows; the others are taken over.

    Args:
        rows: The runs of rows of each such tensor, by its name (see ``alignment``).
    """

    rule: ClassVar[Rule] = "moe"
    rows: Mapping[str, list[list[Any]]]

    @property
    def parameters(self) -> Parameters:
        """The runs."""
        return {"rows": dict(self.rows)}


@dataclass(frozen=True)
class MakeRouters(Interface):
    """Routers are computed from the base's hidden states or embeddings of prompts.

    Args:
        gate: How they are computed.
        prompts: For each expert, its positive and its negative prompts.
        base: Key of the model that reads them.
        chat_template: Whether each prompt is put through the base's chat template.
        as_mergekit: Whether the result is to equal mergekit's, bit for bit.
    """

    rule: ClassVar[Rule] = "moe"
    gate: Gate
    prompts: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    base: str
    chat_template: bool
    as_mergekit: bool

    @property
    def parameters(self) -> Parameters:
        """Everything except the base."""
        return {
            "gate": self.gate,
            "prompts": [[list(positive), list(negative)] for positive, negative in self.prompts],
            **({"chat_template": True} if self.chat_template else {}),
            **({"semantics": "mergekit"} if self.as_mergekit else {}),
        }

    @property
    def canonical(self) -> Parameters:
        """Everything."""
        return {**self.parameters, "base": self.base}

    @property
    def folders(self) -> tuple[str, ...]:
        """The base."""
        return (self.base,)


@dataclass(frozen=True)
class DrawRouters(Interface):
    """Routers are drawn at random.

    Args:
        gate: Names the distribution.
        seed: Seed of the draw.
        chat_template: The recipe's setting, which has no effect, since no prompt is read.
    """

    rule: ClassVar[Rule] = "moe"
    gate: Gate
    seed: int
    chat_template: bool

    @property
    def parameters(self) -> Parameters:
        """Gate and seed, and no prompts."""
        return {
            "gate": self.gate,
            "prompts": [],
            "seed": self.seed,
            **({"chat_template": True} if self.chat_template else {}),
        }
