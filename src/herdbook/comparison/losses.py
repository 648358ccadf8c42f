"""What a quantized file must keep: no more loss than the recipe allows, and clearly less than a mixture whose experts are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import LOSSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from herdbook.plan import Plan

CLEARLY = 0.5  # of the control's loss: a file without its experts loses about as much as the control, somewhat more or less


def missed(plan: Plan, read_json: Callable[[str], Any]) -> Iterator[str]:
    """Yield why a file of a plan must not be released, one sentence each. Files of other publishers may lose what they like.

    Args:
        plan: The plan.
        read_json: Returns a JSON file of the release by its name.

    Raises:
        LookupError: If a file is damaged.
        TypeError: If a file is damaged.
    """
    loss = plan.recipe.quantize.loss if plan.recipe.quantize else None
    if loss is None or plan.reference is None:
        return
    control = None
    if plan.reference.has_control:
        control = read_json(f"{LOSSES}/{plan.reference.id}.json")["control"]["kl_divergence"]["value"]
    for item in plan.losses:
        if item.locked:
            continue
        found = read_json(f"{LOSSES}/{item.id}.json")["total"]["kl_divergence"]
        value, stderr = found["value"], found["stderr"]
        measured = f"{item.quantized.file if item.quantized else item.label}: its mean KL divergence is {value:.4g} ± {stderr:.2g}"
        ceiling = loss.ceiling_of(item.label)
        if ceiling is not None and value > ceiling:
            yield (
                f"quantize.loss.ceiling: {measured}, above the {ceiling:g} that the recipe allows. Choose a wider method, or leave "
                "the file out"
            )
        if control is not None and value >= CLEARLY * control:
            yield (
                f"quantize.loss: {measured}, and that of the model at full width with shuffled experts is {control:.4g}: the "
                "file's experts are as good as lost. Choose a wider method, or leave the file out"
            )
