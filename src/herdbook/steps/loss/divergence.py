"""How far the predictions of a quantized model are from those of the model at full width.

The figures and their standard errors are those that llama.cpp's ``llama-perplexity --kl-divergence`` prints: tokens count as
independent. Predictions are compared in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DIGITS = 9  # decimals in a result
ROWS = 64  # tokens whose logits are in memory at once: the same number for any number of threads, so that results are equal


@dataclass(frozen=True)
class Tokens:
    """What was found for each predicted token.

    Args:
        divergence: The KL divergence of the prediction from the reference's, in nats; float64.
        surprise: Minus the logarithm of the probability of the token that follows; float64.
        expected: The same by the reference.
        same: Whether both have the same most probable token.
    """

    divergence: NDArray[np.float64]
    surprise: NDArray[np.float64]
    expected: NDArray[np.float64]
    same: NDArray[np.bool_]


def compare(
    reference: tuple[torch.Tensor, torch.Tensor],
    quantized: tuple[torch.Tensor, torch.Tensor],
    ids: Sequence[int],
    what: str,
) -> Tokens:
    """Compare the predictions of two models for a sequence.

    Args:
        reference: The last hidden states of the model at full width, ``(tokens, hidden)``, and its output matrix,
            ``(vocabulary, hidden)``: their product are its logits.
        quantized: The same of the other model.
        ids: The tokens.
        what: The other model's name in errors.

    Raises:
        StepError: If logits are not numbers.
    """
    pieces: list[list[torch.Tensor]] = []
    targets = torch.tensor(list(ids[1:]))
    for first in range(0, len(targets), ROWS):
        rows, target = slice(first, min(first + ROWS, len(targets))), targets[first : first + ROWS, None]
        full, own = (
            torch.log_softmax((states[rows] @ head.T).double(), dim=-1)
            for states, head in (reference, quantized)
        )
        pieces.append(
            [
                (full.exp() * (full - own)).sum(dim=-1),
                -own.gather(1, target)[:, 0],
                -full.gather(1, target)[:, 0],
                full.argmax(dim=-1) == own.argmax(dim=-1),
            ]
        )
    found = [torch.cat(columns).numpy() for columns in zip(*pieces, strict=True)]
    if not all(np.isfinite(column).all() for column in found):
        raise StepError(f"{what}: its logits are not all numbers, so it cannot be used. Make it again")
    return Tokens(*found)


def summarize(found: Sequence[Tokens]) -> dict[str, Any]:
    """Return the summary over all tokens, as JSON."""
    divergence, surprise, expected, same = (
        np.concatenate([getattr(one, name) for one in found])
        for name in ("divergence", "surprise", "expected", "same")
    )
    ratio, ratio_error = _exponential(surprise - expected)
    perplexity, perplexity_error = _exponential(surprise)
    mean, mean_error = _mean(divergence)
    share = float(same.mean())
    p50, p99, p999, most = np.quantile(divergence, [0.5, 0.99, 0.999, 1.0])
    return {
        "tokens": len(divergence),
        "perplexity": _measured(perplexity, perplexity_error),
        "perplexity_ratio": _measured(ratio, ratio_error),
        "kl_divergence": {
            **_measured(mean, mean_error),
            "median": round(float(p50), DIGITS),
            "p99": round(float(p99), DIGITS),
            "p99.9": round(float(p999), DIGITS),
            "max": round(float(most), DIGITS),
        },
        "same_top": _measured(share, math.sqrt(share * (1 - share) / (len(same) - 1))),
    }


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return a mean and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values) - 1))


def _exponential(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the exponential of a mean, and its standard error."""
    mean, error = _mean(values)
    return math.exp(mean), math.exp(mean) * error


def _measured(value: float, stderr: float) -> dict[str, float]:
    return {"value": round(value, DIGITS), "stderr": round(stderr, DIGITS)}
