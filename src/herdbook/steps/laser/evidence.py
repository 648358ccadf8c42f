"""What a record says of a matrix: its spectrum in short, the noise in it, what was kept, and what that rests on."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from herdbook.steps.laser.law import noise_law
from herdbook.steps.laser.rank import signal_to_noise, thresholds

POINTS = 33  # of the spectrum in a record: its largest value, its smallest, and evenly between
GOOD_FIT = 0.05  # distance from the law up to which a large spectrum's bulk is called noise; see `is_noise`


def rounded(value: float, digits: int = 6) -> float:
    """Return a number with so many significant digits: beyond them, other processors may differ."""
    return float(f"{value:.{digits}g}")


def places(count: int) -> list[int]:
    """Return which of so many singular values, from 0, the points of a record are."""
    return [int(place) for place in np.linspace(0, count - 1, min(POINTS, count)).round()]


def is_noise(misfit: float, count: int) -> bool:
    """Say whether a spectrum's bulk passes for white noise, by ``NoiseLaw.misfit``; of few values less is asked."""
    return misfit <= GOOD_FIT + 2 / count


def describe_spectrum(values: np.ndarray, rows: int, columns: int) -> dict[str, Any]:
    """Sum up a spectrum.

    Args:
        values: All singular values, descending.
        rows: Rows of the matrix.
        columns: Its columns.

    Returns:
        ``sha256`` of the values (float64, little-endian), ``points`` (33 of them, evenly by rank), ``thresholds`` of
        the rules and the ranks that they would keep, ``noise`` (standard deviation of an entry, if the median is noise's), ``misfit`` (see
        ``NoiseLaw.misfit``), ``snr`` (energy above the noise's edge over that below), ``stable_rank`` (the sum of all
        squares over the largest).
    """
    law = noise_law(rows, columns)
    squares = values**2
    snr = signal_to_noise(values, rows, columns)
    return {
        "sha256": hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").tobytes()).hexdigest(),
        "points": [rounded(float(values[place])) for place in places(len(values))],
        "thresholds": {
            name: {"value": rounded(value), "rank": max(1, int((values > value).sum()))}
            for name, value in thresholds(values, rows, columns).items()
        },
        "noise": rounded(law.noise_level(values)),
        "misfit": rounded(law.misfit(values), 3),
        "snr": rounded(snr) if np.isfinite(snr) else None,
        "stable_rank": rounded(float(squares.sum() / squares[0])) if squares[0] else 0.0,
    }
