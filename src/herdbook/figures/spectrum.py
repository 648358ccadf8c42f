"""A matrix's spectrum: its singular values by rank, those of pure noise, and where each rule cuts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.figures.svg import (
    BLUE,
    FAINT,
    GRAY,
    GREEN,
    MARGIN,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    WIDTH,
    document,
    fit,
    heading,
    label,
    line,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

HEIGHT, LEFT, KEY = 230.0, 62.0, 20.0  # of the plot; of its left edge; of a line of the key below it
VALUES, NOISE = BLUE, ORANGE
RULES = (GREEN, PURPLE, VERMILION, SKY, GRAY)
DECADES = 8  # at most; smaller values are drawn at the bottom


@dataclass(frozen=True)
class Cut:
    """Where a rule cuts: its name, how many values it keeps, and its threshold if it has one."""

    name: str
    rank: int
    threshold: float | None = None


def draw_spectrum(
    values: Sequence[tuple[float, float]],
    noise: Sequence[tuple[float, float]],
    count: int,
    cuts: Sequence[Cut],
    title: str,
) -> str:
    """Return the spectrum as SVG, singular values on a logarithmic axis.

    Args:
        values: Points (rank from 1, singular value), descending.
        noise: Points of the spectrum of pure noise with the same shape and median.
        count: Number of singular values.
        cuts: Rules and where they cut.
        title: Its title.
    """
    highest = max([value for _, value in (*values, *noise)], default=1.0) or 1.0
    lowest = min([value for _, value in (*values, *noise) if value > 0], default=highest)
    low = max(math.log10(lowest), math.log10(highest) - DECADES)
    high = math.log10(highest)
    span = max(high - low, 0.3)
    low, high = low - 0.05 * span, high + 0.05 * span
    body, top = heading(MARGIN, title)
    top += 8
    width, height = WIDTH - LEFT - MARGIN, HEIGHT

    def x(rank: float) -> float:
        return LEFT + width * (rank - 1) / max(1, count - 1)

    def y(value: float) -> float:
        power = math.log10(value) if value > 0 else low
        return top + height * (high - min(max(power, low), high)) / (high - low)

    for power in _ticks(low, high):
        body.append(line(LEFT, y(power), LEFT + width, y(power), "hb-grid"))
        body.append(label(LEFT - 8, y(power) + 4, f"{power:.3g}", SMALL, anchor="end", ink=FAINT))
    body += [
        label(x(rank), top + height + 18, str(rank), SMALL, anchor="middle", ink=FAINT)
        for rank in sorted({1, *(round(count * part / 4) for part in (1, 2, 3)), count} - {0})
    ]
    body.append(label(LEFT - 8, top + height + 18, "rank", SMALL, anchor="end", ink=FAINT))
    body.append(_curve([(x(r), y(v)) for r, v in noise], NOISE, "5 4"))
    body.append(_curve([(x(r), y(v)) for r, v in values], VALUES))
    keys = [("singular values", VALUES), ("pure noise of this shape", NOISE)]
    for index, cut in enumerate(cuts):
        color = RULES[index % len(RULES)]
        body.append(line(x(max(cut.rank, 1)), top, x(max(cut.rank, 1)), top + height, color, 1.5))
        if cut.threshold is not None and low <= _log(cut.threshold) <= high:
            body.append(line(LEFT, y(cut.threshold), LEFT + width, y(cut.threshold), color, 0.75))
        keys.append((f"{cut.name}: {cut.rank} of {count}", color))
    first = top + height + 44
    for index, (text, color) in enumerate(keys):
        baseline = first + KEY * index
        body.append(line(LEFT, baseline - 4, LEFT + 18, baseline - 4, color, 2.5))
        body.append(label(LEFT + 26, baseline, fit(text, SMALL, WIDTH - LEFT - 26 - MARGIN), SMALL))
    return document(first + KEY * (len(keys) - 1) + MARGIN, title, body)


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two powers of ten: decades, and their double and fivefold if space allows."""
    steps = (1,) if high - low > 3 else (1, 2, 5)
    numbers = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [value for value in numbers if low <= math.log10(value) <= high]


def _curve(points: Sequence[tuple[float, float]], color: str, dashes: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    style = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"{style}/>'
