"""The measurements: a panel for each task, a row for each model, a dot with its standard error."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from herdbook.figures.svg import (
    BLUE,
    FAINT,
    GREEN,
    MARGIN,
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
    from collections.abc import Sequence

ROW, FOOT = 22.0, 36.0  # heights of a row, and of what is below the last row of a panel
MAX_NAME = 150.0


@dataclass(frozen=True)
class MeasuredRow:
    """A model's result.

    Args:
        name: The model.
        value: The result.
        stderr: Its standard error.
        shown: Both as text.
        best: Whether it is the best of the panel.
        released: Whether it is the released model.
    """

    name: str
    value: Decimal
    stderr: Decimal | None
    shown: str
    best: bool
    released: bool


@dataclass(frozen=True)
class Panel:
    """One task in one metric."""

    title: str
    rows: tuple[MeasuredRow, ...]


def draw_measurements(panels: Sequence[Panel], title: str) -> str:
    """Return the chart as SVG; each panel has an axis of its own, which does not have to start at zero."""
    rows = [row for panel in panels for row in panel.rows]
    names = min(MAX_NAME, max(text_width(row.name, SMALL) for row in rows) + 4)
    values = max(text_width(row.shown, SMALL) for row in rows)
    left, right = MARGIN + names + 12, WIDTH - MARGIN - values - 12
    body: list[str] = []
    top = MARGIN
    for panel in panels:
        shapes, top = heading(top, panel.title)
        body += shapes
        body += _panel(panel, top + 4, left, right, names)
        top += 4 + ROW * len(panel.rows) + FOOT
    return document(top - FOOT + 22 + MARGIN, title, body)


def _panel(panel: Panel, first: float, left: float, right: float, names: float) -> list[str]:
    low = min(row.value - (row.stderr or 0) for row in panel.rows)
    high = max(row.value + (row.stderr or 0) for row in panel.rows)
    pad = (high - low) * Decimal("0.06") or max(abs(high) * Decimal("0.05"), Decimal("0.001"))
    low, high = low - pad, high + pad

    def at(value: Decimal) -> float:
        return left + (right - left) * float((value - low) / (high - low))

    bottom = first + ROW * len(panel.rows)
    shapes = []
    for index, row in enumerate(panel.rows):
        if row.released:
            y = first + ROW * index
            shapes.append(
                f'<rect x="{MARGIN - 6:.1f}" y="{y:.1f}" width="{WIDTH - 2 * MARGIN + 12:.1f}" height="{ROW:.0f}" rx="4" class="hb-band"/>'
            )
    end = left
    for tick in ticks(low, high):
        shapes.append(line(at(tick), first, at(tick), bottom, "hb-grid"))
        half = text_width(f"{tick:f}", SMALL) / 2
        if at(tick) - half >= end:  # numbers that would overlap are left out
            shapes.append(label(at(tick), bottom + 16, f"{tick:f}", SMALL, anchor="middle", ink=FAINT))
            end = at(tick) + half + 4
    shapes.append(line(left, bottom, right, bottom, "hb-axis"))
    for index, row in enumerate(panel.rows):
        y = first + ROW * (index + 0.5)
        color = GREEN if row.best else BLUE
        shapes.append(label(MARGIN, y + 4.5, fit(row.name, SMALL, names), SMALL, bold=row.released))
        if row.stderr:
            start, stop = at(row.value - row.stderr), at(row.value + row.stderr)
            shapes += [
                line(start, y, stop, y, color, 2),
                line(start, y - 5, start, y + 5, color, 2),
                line(stop, y - 5, stop, y + 5, color, 2),
            ]
        shapes.append(f'<circle cx="{at(row.value):.1f}" cy="{y:.1f}" r="5" fill="{color}"/>')
        shapes.append(label(WIDTH - MARGIN, y + 4.5, row.shown, SMALL, anchor="end", bold=row.best))
    return shapes


def ticks(low: Decimal, high: Decimal) -> list[Decimal]:
    """Return two to seven round numbers between two numbers, in steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    step = Decimal(1).scaleb((span / 4).adjusted())
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    tick = (low / step).to_integral_value(ROUND_CEILING) * step
    numbers = []
    while tick <= high:
        numbers.append(tick + 0)  # not minus zero
        tick += step
    return numbers
