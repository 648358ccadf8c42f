"""The facts that a card states about routers, from the report on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError
from herdbook.steps.card.results import read_json

if TYPE_CHECKING:
    from herdbook.plan import Plan


@dataclass(frozen=True)
class Kind:
    """The routing of one kind of text.

    Args:
        name: Its name in the recipe.
        tokens: How many tokens were read.
        loss: Mean loss in nats per token.
        by_layer: For each layer, the share of the choices that each expert gets.
        margin: Mean difference, over layers, between the probabilities of the last expert chosen and the first one not
            chosen; None if all experts are chosen.
        effective: Effective number of experts (exponential of the shares' entropy), on average over layers.
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
    """The choices of the routers.

    Args:
        experts: The models that the experts come from, in order.
        chosen: How many experts each token is routed to.
        layers: Number of layers.
        kinds: The kinds of text that were read.
        prompts: For each expert that has prompts, its name and the share of the choices that each expert gets.
        verdict: The problems of the routers' rows, one line each.
    """

    experts: tuple[str, ...]
    chosen: int
    layers: int
    kinds: tuple[Kind, ...]
    prompts: tuple[tuple[str, tuple[float, ...]], ...]
    verdict: tuple[str, ...]


def read_routing(plan: Plan) -> RoutingFacts | None:
    """Read the report on the released mixture's routers; None if the release is not a mixture.

    Raises:
        StepError: If the report is missing, damaged or of another plan.
    """
    if plan.report is None:
        return None
    path = plan.layout.report(plan.report)
    report = read_json(path, "report on routers")
    try:
        if report["key"] != plan.report.key:
            raise StepError(f"card: {path}: belongs to another plan. Delete it and rebuild.")
        return RoutingFacts(
            tuple(report["experts"]),
            report["experts_per_token"],
            len(report["rows"]),
            tuple(_kind(name, report["texts"][name], report["layers"]) for name in plan.report.texts),
            tuple(
                (f"expert {place}", tuple(report["prompts"][f"prompts of expert {place}"]))
                for place in range(1, len(report["experts"]) + 1)
                if f"prompts of expert {place}" in report["prompts"]
            ),
            tuple(report["verdict"]),
        )
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise StepError(f"card: {path}: is not a report on routers. Delete it and rebuild.") from error


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
