"""Planning the comparisons: which models are compared with which, on what they were measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.plan.material import ancestry
from herdbook.recipe import Laser

if TYPE_CHECKING:
    from herdbook.plan.evaluate import Evaluation
    from herdbook.plan.plan import Plan


def compared_pairs(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Return the pairs of models that are compared, a model and another: the recipe's, then those of LASER.

    A lasered model of the release's lineage is compared with the model that it was made from, if both are measured.
    """
    section = plan.recipe.evaluate
    if section is None:
        return ()
    pairs = [(name, other) for name, others in section.compare.items() for other in others]
    pairs += [
        (node.name, node.recipe.laser)
        for node in ancestry(plan)
        if isinstance(node.recipe, Laser) and {node.name, node.recipe.laser} <= set(section.models)
    ]
    return tuple(dict.fromkeys(pairs))


def compared(plan: Plan) -> tuple[Evaluation, ...]:
    """Return the measurements whose samples are compared, in the order of the card's table."""
    names = {name for pair in compared_pairs(plan) for name in pair}
    for mark in plan.recipe.marks:
        if mark.no_worse_than is not None:
            names |= {plan.released.name, mark.no_worse_than}
    return tuple(item for item in plan.evaluations if item.quantized is None and item.name in names)
