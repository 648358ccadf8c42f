"""What a card tells of the routers, from the report on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError
from herdbook.steps.card.results import read_json

if TYPE_CHECKING:
    from herdbook.plan import Plan


@dataclass(frozen=True)
class Kind:
    """What becomes of one kind of text.

    Args:
        name: Its name in the recipe.
        tokens: How many tokens were read.
        loss: Mean loss in nats a token.
        by_layer: For each layer, the share of the choices that each expert gets.
        margin: Mean gap of the odds between the last expert chosen and the first that is not, over layers; None if all
            experts are chosen.
        effective: How many experts would be as evenly used, on average over layers.
    """

    name: str
    tokens: int
    loss: float
    by_layer: tuple[tuple[float, ...], ...]
    margin: float | None
    effective: float

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each expert, on average over layers."""
        return tuple(sum(column) / len(self.by_layer) for column in zip(*self.by_layer, strict=True))


@dataclass(frozen=True)
class RoutingFacts:
    """What the routers do.

    Args:
        experts: The models that the experts come from, in order.
        chosen: How many a token passes.
        layers: Number of layers.
        kinds: The kinds of text that were read.
        prompts: For each expert that has prompts, by its place, the share of the choices that each expert gets.
        verdict: What is wrong with the routers' rows, one line each.
    """

    experts: tuple[str, ...]
    chosen: int
    layers: int
    kinds: tuple[Kind, ...]
    prompts: tuple[tuple[str, tuple[float, ...]], ...]
    verdict: tuple[str, ...]


def read_routing(plan: Plan) -> RoutingFacts | None:
    """Read the report on the released mixture's routers; None if it is no mixture.

    Raises:
        StepError: If the report is missing, damaged or of another plan.
    """
    if plan.report is None:
        return None
    path = plan.layout.report(plan.report)
    found = read_json(path, "report on routers")
    try:
        if found["key"] != plan.report.key:
            raise StepError(f"card: {path}: belongs to another plan. Delete it and build again.")
        return RoutingFacts(
            tuple(found["experts"]),
            found["experts_per_token"],
            len(found["rows"]),
            tuple(_kind(name, found["texts"][name], found["layers"]) for name in plan.report.texts),
            tuple(
                (f"expert {place}", tuple(found["prompts"][f"prompts of expert {place}"]))
                for place in range(1, len(found["experts"]) + 1)
                if f"prompts of expert {place}" in found["prompts"]
            ),
            tuple(found["verdict"]),
        )
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise StepError(f"card: {path}: is no report on routers. Delete it and build again.") from error


def _kind(name: str, text: dict[str, Any], layers: list[dict[str, Any]]) -> Kind:
    own = [layer[name] for layer in layers]
    margins = [layer["margin"] for layer in own]
    return Kind(
        name,
        text["tokens"],
        text["loss"],
        tuple(tuple(layer["share"]) for layer in own),
        None if None in margins else sum(margins) / len(margins),
        sum(layer["effective"] for layer in own) / len(own),
    )
