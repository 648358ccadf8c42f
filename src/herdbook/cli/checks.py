"""The checks of a new lock that other programs make: transformers of model types and tokenizers, llama.cpp of tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from herdbook.plan import Plan


def check(plan: Plan) -> list[str]:
    """Check what other programs would refuse after the build, or load as another model.

    Returns:
        The plan's warnings, and those of these checks.

    Raises:
        RecipeError: If a model would not load whole, or its tokenizer would be read as another one, or cannot be converted.
        SourceError: If a file that a check reads is unavailable.
    """
    from herdbook.plan.whole import check_nodes
    from herdbook.steps.fetch.tokenizer import check_tokenizers
    from herdbook.steps.imatrix.given import check_given
    from herdbook.steps.quantize.vocabulary import check_vocabulary

    check_nodes(plan)
    warnings = [check_given(plan), check_tokenizers(plan), check_vocabulary(plan)]
    return [*plan.warnings, *filter(None, warnings)]
