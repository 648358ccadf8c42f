"""The guard: a paired test of the loss of windows, before and after."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class PairedDifference:
    """The mean of paired differences, in nats per token, with its standard error and a confidence limit.

    Args:
        mean: After minus before; negative is better.
        stderr: Standard error of the mean.
        upper: One-sided upper confidence limit of the mean.
    """

    mean: float
    stderr: float
    upper: float


def paired(before: Sequence[float], after: Sequence[float], confidence: float) -> PairedDifference:
    """Compare losses of the same windows.

    Args:
        before: Loss of each window, in nats per token.
        after: Loss of the same windows, in the same order.
        confidence: Confidence of the one-sided limit, such as 0.95.

    Source: Student's t for paired samples; see any textbook.
    """
    differences = [new - old for old, new in zip(before, after, strict=True)]
    mean = fmean(differences)
    stderr = stdev(differences) / math.sqrt(len(differences))
    return PairedDifference(mean, stderr, mean + t_quantile(confidence, len(differences) - 1) * stderr)


def t_quantile(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t distribution, accurate to four digits for 29 or more degrees of freedom.

    Source: Abramowitz and Stegun 1964, 26.7.5 (Cornish-Fisher expansion).
    """
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def accepts(against_current: PairedDifference, against_start: PairedDifference, margin: float) -> bool:
    """Return whether a reduction is kept.

    It is kept if, at the test's confidence, it costs no more than the margin compared with the current model, and also
    compared with the original model: so small costs cannot add up.
    """
    return against_current.upper <= margin and against_start.upper <= margin
