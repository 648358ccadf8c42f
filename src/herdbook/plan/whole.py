"""Whether the models of a plan load whole, where only transformers defines which tensors a model type has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.form import is_known
from herdbook.errors import RecipeError, StepError
from herdbook.weights.loading import loading_problems

if TYPE_CHECKING:
    from herdbook.plan.plan import Plan


def check_nodes(plan: Plan) -> None:
    """Check the models of types whose tensors only transformers defines; the plan has checked all others.

    Raises:
        RecipeError: If one of them does not load whole, or is of a type that transformers does not have.
    """
    problems = []
    for node in plan.nodes.values():
        if is_known(node.config):
            continue
        try:
            lines = loading_problems(node.config, node.form)
        except StepError as error:
            lines = [str(error)]
        problems += [f"models.{node.name}: {line}" for line in lines]
    if problems:
        raise RecipeError(problems)
