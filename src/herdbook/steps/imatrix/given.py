"""Whether a given importance matrix is that of the released model, before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import CheckpointError, RecipeError, StepError

if TYPE_CHECKING:
    from herdbook.plan import Plan


def check_given(plan: Plan) -> str | None:
    """Read the importance matrix that the recipe names, if it names one.

    Returns:
        A warning if it cannot be read here, since the package for it is not installed; else None.

    Raises:
        RecipeError: If it is damaged, or that of another model, or too few tokens reached an expert.
    """
    item = plan.imatrix
    if item is None or item.given is None:
        return None
    try:
        from herdbook.steps.imatrix.step import made
    except ModuleNotFoundError as error:
        return f"quantize.imatrix: whether it is the released model's is not known, since {error.name} is not installed here"
    try:
        made(plan, item, plan.recipe_path.parent, 1)
    except (CheckpointError, StepError) as error:
        raise RecipeError(f"quantize.imatrix: {error}") from error
    return None
