"""The checks of a new lock that other programs make: transformers of model types, llama.cpp of tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from herdbook.plan import Plan


def check(plan: Plan) -> list[str]:
    """Check what other programs would refuse after the build, or load as another model.

    Returns:
        The plan's warnings, and those of these checks.

    Raises:
        RecipeError: If a model would not load whole, or its tokenizer cannot be converted.
        SourceError: If a file that a check reads is unavailable.
    """
    from herdbook.plan.whole import check_nodes
    from herdbook.steps.quantize.vocabulary import check_vocabulary

    check_nodes(plan)
    warning = check_vocabulary(plan)
    return [*plan.warnings, *([warning] if warning else [])]
