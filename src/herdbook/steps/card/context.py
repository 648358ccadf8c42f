"""The facts that a card states, as its templates read them.

Apart from short phrases, text for people comes from the templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.architectures.mixtures import BY_MODEL_TYPE
from herdbook.architectures.modules import reads_images
from herdbook.steps.card.choices import Choice, Fit, context_length, listed_tokens

if TYPE_CHECKING:
    from herdbook.comparison.marks import Outcome
    from herdbook.escape import Markdown
    from herdbook.plan import Node
    from herdbook.plan.licensing import LicensedSource
    from herdbook.recipe import Expert, Mixture, Recipe
    from herdbook.steps.card.asserted import Asserted
    from herdbook.steps.card.changes import Changes
    from herdbook.steps.card.compared import Compared
    from herdbook.steps.card.counts import Counts
    from herdbook.steps.card.files import FileFacts
    from herdbook.steps.card.lasered import Effect, Lasered
    from herdbook.steps.card.losses import LossRow
    from herdbook.steps.card.origins import MadeModel, Source
    from herdbook.steps.card.rank import Ranked
    from herdbook.steps.card.results import Column, Measurement
    from herdbook.steps.card.routed import RoutingFacts
    from herdbook.steps.card.standing import Standings
    from herdbook.steps.card.suites import SuiteTable
    from herdbook.steps.card.tuned import Tuned
    from herdbook.weights.record import TensorEntry

MOST_CHOICES = 5  # files that are listed unfolded


@dataclass(frozen=True)
class MoeFacts:
    """A Mixture of Experts.

    Args:
        mixture: Its entry in the recipe.
        base_parameters: Parameters of the base model.
        twins: Places (from 1) of experts whose weights are equal, bit for bit; in groups of two or more.
        distinct: Number of experts that differ.
    """

    mixture: Mixture
    base_parameters: int
    twins: tuple[tuple[int, ...], ...]
    distinct: int

    @property
    def naive(self) -> int:
        """Parameters of separate models, one for each expert."""
        return self.base_parameters * len(self.mixture.experts)

    @property
    def experts(self) -> tuple[tuple[int, Expert], ...]:
        """The experts with their places, from 1."""
        return tuple(enumerate(self.mixture.experts, start=1))


@dataclass(frozen=True)
class Facts:
    """Everything that a card states."""

    front_matter: Markdown
    image: str | None
    recipe: Recipe
    recipe_text: str
    recipe_sha256: str
    herdbook_version: str
    released: Node
    counts: Counts
    size_bytes: int
    moe: MoeFacts | None
    routing: RoutingFacts | None
    lasered: tuple[Lasered, ...]
    effects: tuple[Effect, ...]
    tuned: tuple[Tuned, ...]
    measurements: tuple[Measurement, ...]
    suites: tuple[SuiteTable, ...]
    columns: tuple[Column, ...]
    comparisons: tuple[Compared, ...]
    marks: tuple[Outcome, ...]
    ranks: tuple[Ranked, ...]
    asserted: tuple[Asserted, ...]
    sources: tuple[Source, ...]
    licensed: tuple[LicensedSource, ...]
    made: tuple[MadeModel, ...]
    choices: tuple[Choice, ...]
    fits: tuple[Fit, ...]
    losses: tuple[LossRow, ...]
    commands: str
    changes: Changes | None
    citations: str
    standings: Standings | None
    weights: tuple[FileFacts, ...]
    quantized: tuple[FileFacts, ...]
    actions: tuple[tuple[str, int], ...]
    spectrum: tuple[str, TensorEntry] | None
    versions: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def own(self) -> Measurement | None:
        """The released model's measurement."""
        return next((m for m in self.measurements if m.node == self.released.name and m.method is None), None)

    @property
    def chief(self) -> tuple[Choice, ...]:
        """Of many files, those to choose from first: full width, the recommended one, and the largest and smallest others."""
        if len(self.choices) <= MOST_CHOICES:
            return self.choices
        small = sorted((one for one in self.choices if one.method), key=lambda one: one.size_bytes)
        return tuple(
            one for one in self.choices if not one.method or one.recommended or one in (small[0], small[-1])
        )

    @property
    def used(self) -> dict[str, str]:
        """The versions of packages that decided the bytes or measured them, in words."""
        return {package: " and ".join(versions) for package, versions in self.versions}

    @property
    def built_with(self) -> tuple[str, ...]:
        """The words that licenses of the sources want to be displayed."""
        return tuple(dict.fromkeys(text for source in self.licensed for text in source.shown("built-with")))

    @property
    def loadable(self) -> bool:
        """Whether transformers has the released model's class."""
        return is_loadable(self.released)

    @property
    def reads_images(self) -> bool:
        """Whether the released model also reads images."""
        return reads_images(self.released.config)

    @property
    def context_length(self) -> int | None:
        """How many tokens the released model was made for; None if its configuration does not state it."""
        return context_length(self.released.config)

    @property
    def listed_tokens(self) -> int:
        """The length of the context in the memory of the table of files."""
        return listed_tokens(self.released.config)


def is_loadable(node: Node) -> bool:
    """Return whether transformers has a model's class."""
    mixture = BY_MODEL_TYPE.get(node.config.get("model_type", ""))
    return mixture is None or mixture.loadable
