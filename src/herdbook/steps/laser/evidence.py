"""The evidence in a record of a matrix: a summary of its spectrum, its noise, and how well the rule's assumption holds."""

from __future__ import annotations

import hashlib
from typing import TypedDict

import numpy as np

from herdbook.steps.laser.law import noise_law
from herdbook.steps.laser.rank import signal_to_noise, thresholds

POINTS = (
    33  # points of the spectrum in a record: the largest value, the smallest, and evenly spaced ones between
)
GOOD_FIT = 0.05  # distance from the law up to which a large spectrum's bulk counts as noise; see `is_noise`


class ThresholdCut(TypedDict):
    """A rule's threshold, and the rank that it would keep."""

    value: float
    rank: int


class SpectrumSummary(TypedDict):
    """What a record has of a spectrum.

    Args:
        sha256: Digest of the values, as float64, little-endian.
        points: 33 values, evenly spaced by rank.
        thresholds: Where the rules would cut.
        noise: Standard deviation of an entry, if the median singular value is noise.
        misfit: See ``NoiseLaw.misfit``.
        snr: Energy above the noise's edge divided by the energy below it; None if it is infinite.
        stable_rank: The sum of all squares divided by the largest.
    """

    sha256: str
    points: list[float]
    thresholds: dict[str, ThresholdCut]
    noise: float
    misfit: float
    snr: float | None
    stable_rank: float


def rounded(value: float, digits: int = 6) -> float:
    """Round a number to significant digits that do not depend on the processor."""
    return float(f"{value:.{digits}g}")


def places(count: int) -> list[int]:
    """Return the indices, from 0, of the points of a record among ``count`` singular values."""
    return [int(index) for index in np.linspace(0, count - 1, min(POINTS, count)).round()]


def is_noise(misfit: float, count: int) -> bool:
    """Return whether a spectrum's bulk passes for white noise, by ``NoiseLaw.misfit``; few values get a wider tolerance."""
    return misfit <= GOOD_FIT + 2 / count


def describe_spectrum(values: np.ndarray, rows: int, columns: int) -> SpectrumSummary:
    """Summarize a spectrum.

    Args:
        values: All singular values, descending.
        rows: Rows of the matrix.
        columns: Columns of the matrix.

    """
    law = noise_law(rows, columns)
    squares = values**2
    snr = signal_to_noise(values, rows, columns)
    return {
        "sha256": hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").tobytes()).hexdigest(),
        "points": [rounded(float(values[index])) for index in places(len(values))],
        "thresholds": {
            name: {"value": rounded(value), "rank": max(1, int((values > value).sum()))}
            for name, value in thresholds(values, rows, columns).items()
        },
        "noise": rounded(law.noise_level(values)),
        "misfit": rounded(law.misfit(values), 3),
        "snr": rounded(snr) if np.isfinite(snr) else None,
        "stable_rank": rounded(float(squares.sum() / squares[0])) if squares[0] else 0.0,
    }
