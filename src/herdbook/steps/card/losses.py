"""The losses by quantization, as the card lists them: ours, and those of other publishers' files beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.steps.card.results import read_json

if TYPE_CHECKING:
    from herdbook.plan import Plan


@dataclass(frozen=True)
class LossRow:
    """The loss of a quantized file.

    Args:
        name: Its method or name.
        repo: The repository of another publisher's file; empty if it is ours.
        size_bytes: Its size.
        bits: Bits per weight.
        divergence: The mean KL divergence, in nats per token.
        stderr: Its standard error.
        p99: The 99th percentile.
        ratio: The perplexity, divided by that of the model at full width.
        same_top: The share of tokens with the same most probable token.
    """

    name: str
    repo: str
    size_bytes: int
    bits: float
    divergence: float
    stderr: float
    p99: float
    ratio: float
    same_top: float


def losses_of(plan: Plan) -> tuple[LossRow, ...]:
    """Return the losses of a plan's files. Raises StepError if one is damaged."""
    rows = []
    for item in plan.losses:
        path = plan.layout.loss(item)
        found = read_json(path, f"loss of {item.label}")
        try:
            total = found["total"]
            divergence = total["kl_divergence"]
            rows.append(
                LossRow(
                    item.label,
                    item.repo,
                    int(found["file"]["size_bytes"]),
                    float(found["bits_per_weight"]),
                    float(divergence["value"]),
                    float(divergence["stderr"]),
                    float(divergence["p99"]),
                    float(total["perplexity_ratio"]["value"]),
                    float(total["same_top"]["value"]),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StepError(
                f"card: {path}: the loss of {item.label} is damaged ({error!r}). Delete it and rerun `loss`."
            ) from error
    return tuple(rows)
