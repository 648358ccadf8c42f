"""What the report on routers must contain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.layout import ROUTING
from herdbook.plan.routing import ROUTING_CODE
from herdbook.release.reader import damaged
from herdbook.verify.results.expected import DEVICE, Expected

if TYPE_CHECKING:
    from herdbook.plan import Plan
    from herdbook.plan.routing import RoutingReport
    from herdbook.release.reader import Release


def routed(plan: Plan, release: Release, report: RoutingReport) -> Expected:
    """Return what the report on routers must contain."""
    name = f"{ROUTING}/{report.id}.json"
    found = release.subject.json(name)
    with damaged(name):
        texts = {
            text: {key: value for key, value in entry.items() if key != "loss"}
            for text, entry in found["texts"].items()
        }
        layers = [sorted(layer) for layer in found["layers"]]
        prompts = sorted(found["prompts"])
    planned = {text: plan.recipe.calibration[text] for text in report.texts}
    experts = range(1, len(report.experts) + 1)
    return Expected(
        name,
        ROUTING_CODE,
        report.about,
        frozenset({"texts", "layers", "prompts", "rows", "verdict", DEVICE}),
        [
            (
                {
                    text: {"windows": one.windows, "tokens": one.windows * one.tokens}
                    for text, one in planned.items()
                },
                texts,
            ),
            (
                [sorted(report.texts)] * plan.released.config["num_hidden_layers"] if planned else layers,
                layers,
            ),
            (sorted(f"prompts of expert {place}" for place in experts) if prompts else prompts, prompts),
        ],
    )
