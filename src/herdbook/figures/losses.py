"""Size against loss: a dot for each quantized file, the loss on a logarithmic axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from herdbook.figures.measurements import ticks
from herdbook.figures.svg import (
    BLUE,
    FAINT,
    MARGIN,
    ORANGE,
    SMALL,
    WIDTH,
    document,
    fit,
    heading,
    label,
    line,
    text_width,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEIGHT, FOOT = 260.0, 40.0  # of the plot, and of what is below it
LEFT = MARGIN + 44
MAX_NAME = 120.0
SHORT = -5  # the power of ten from which on a number has too many digits
BETWEEN = 13.0  # the least distance of the baselines of two names


@dataclass(frozen=True)
class FilePoint:
    """A quantized file.

    Args:
        name: Its method or name.
        bits: Bits per weight.
        loss: The mean KL divergence in nats per token, above zero.
        stderr: Its standard error.
        ours: Whether this build made it.
    """

    name: str
    bits: float
    loss: float
    stderr: float
    ours: bool = True


def draw_losses(points: Sequence[FilePoint], title: str) -> str:
    """Return the picture as SVG. Files without any loss have no place on the axis, and are left out."""
    shown = sorted((point for point in points if point.loss > 0), key=lambda point: -point.loss)
    shapes, top = heading(MARGIN, title)
    top += 10
    if not shown:
        return document(top + MARGIN, title, shapes)
    low, high = min(point.bits for point in shown), max(point.bits for point in shown)
    pad = (high - low) * 0.08 or 0.5
    low, high = low - pad, high + pad
    floor = math.floor(math.log10(min(point.loss for point in shown)))
    ceiling = max(math.ceil(math.log10(max(point.loss for point in shown))), floor + 1)

    def across(bits: float) -> float:
        return LEFT + (WIDTH - MARGIN - LEFT) * (bits - low) / (high - low)

    def down(loss: float) -> float:
        return top + HEIGHT * (ceiling - math.log10(loss)) / (ceiling - floor)

    bottom = top + HEIGHT
    for power in range(floor, ceiling + 1):
        y = down(10.0**power)
        shapes += [
            line(LEFT, y, WIDTH - MARGIN, y, "hb-grid"),
            label(LEFT - 6, y + 4, _power(power), SMALL, anchor="end", ink=FAINT),
        ]
    for tick in ticks(Decimal(str(round(low, 6))), Decimal(str(round(high, 6)))):
        x = across(float(tick))
        shapes += [
            line(x, top, x, bottom, "hb-grid"),
            label(x, bottom + 16, f"{tick:f}", SMALL, anchor="middle", ink=FAINT),
        ]
    shapes += [
        line(LEFT, bottom, WIDTH - MARGIN, bottom, "hb-axis"),
        label((LEFT + WIDTH - MARGIN) / 2, bottom + 32, "bits per weight", SMALL, anchor="middle", ink=FAINT),
    ]
    # a name on the axis would be crossed by it
    baselines = list(_apart([min(down(point.loss), bottom - 8) + 4 for point in shown]))
    for point, baseline in zip(shown, baselines, strict=True):
        x, y, color = across(point.bits), down(point.loss), BLUE if point.ours else ORANGE
        if point.loss > point.stderr > 0:
            shapes.append(
                line(x, down(point.loss + point.stderr), x, down(point.loss - point.stderr), color, 2)
            )
        shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color}"/>')
        name = fit(point.name, SMALL, MAX_NAME)
        beside = x + 9 + text_width(name, SMALL) <= WIDTH - MARGIN
        shapes.append(
            label(x + 9 if beside else x - 9, baseline, name, SMALL, anchor="start" if beside else "end")
        )
    return document(bottom + FOOT + MARGIN - 10, title, shapes)


def _power(power: int) -> str:
    return f"{Decimal(1).scaleb(power):f}" if power > SHORT else f"1e{power}"


def _apart(baselines: Sequence[float]) -> Iterator[float]:
    """Yield baselines, from the top, of which none is closer to the one before than is legible."""
    last = -math.inf
    for baseline in baselines:
        last = max(baseline, last + BETWEEN)
        yield last
