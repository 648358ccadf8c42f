"""The measurements: a panel for each task, a row for each model, a dot with its standard error."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from herdbook.figures.svg import FAINT, GRID, INK, document, fit, label, line, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, MARGIN, ROW = 860.0, 24.0, 26.0
HEAD, FOOT = 34.0, 34.0  # above the first row of a panel, below its last
MAX_NAME = 250.0
DOT, BEST, RELEASED = "#5b7aa8", "#3f8a5c", "#f1efe6"


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
    names = min(MAX_NAME, max(text_width(row.name, 13) for row in rows) + 6)
    values = max(text_width(row.shown, 12) for row in rows) + 8
    left, right = MARGIN + names + 16, WIDTH - MARGIN - values - 16
    body: list[str] = []
    top = MARGIN
    for panel in panels:
        body += _panel(panel, top, left, right, names)
        top += HEAD + ROW * len(panel.rows) + FOOT + 8
    return document(WIDTH, top + MARGIN - 20, title, body)


def _panel(panel: Panel, top: float, left: float, right: float, names: float) -> list[str]:
    low = min(row.value - (row.stderr or 0) for row in panel.rows)
    high = max(row.value + (row.stderr or 0) for row in panel.rows)
    pad = (high - low) * Decimal("0.06") or max(abs(high) * Decimal("0.05"), Decimal("0.001"))
    low, high = low - pad, high + pad

    def at(value: Decimal) -> float:
        return left + (right - left) * float((value - low) / (high - low))

    first = top + HEAD
    bottom = first + ROW * len(panel.rows)
    shapes = [label(MARGIN, top + 14, fit(panel.title, 14, WIDTH - 2 * MARGIN), 14, bold=True)]
    for index, row in enumerate(panel.rows):
        if row.released:
            y = first + ROW * index
            shapes.append(
                f'<rect x="{MARGIN - 8:.1f}" y="{y:.1f}" width="{WIDTH - 2 * MARGIN + 16:.1f}" height="{ROW:.0f}" rx="5" fill="{RELEASED}"/>'
            )
    for tick in ticks(low, high):
        shapes.append(line(at(tick), first, at(tick), bottom, GRID))
        shapes.append(label(at(tick), bottom + 16, f"{tick:f}", 11, anchor="middle", fill=FAINT))
    shapes.append(line(left, bottom, right, bottom, FAINT))
    for index, row in enumerate(panel.rows):
        y = first + ROW * (index + 0.5)
        color = BEST if row.best else DOT
        shapes.append(label(MARGIN, y + 4.5, fit(row.name, 13, names), 13, bold=row.released))
        if row.stderr:
            start, end = at(row.value - row.stderr), at(row.value + row.stderr)
            shapes += [
                line(start, y, end, y, color, 2),
                line(start, y - 5, start, y + 5, color, 2),
                line(end, y - 5, end, y + 5, color, 2),
            ]
        shapes.append(f'<circle cx="{at(row.value):.1f}" cy="{y:.1f}" r="5" fill="{color}"/>')
        shapes.append(label(WIDTH - MARGIN, y + 4.5, row.shown, 12, anchor="end", fill=INK, bold=row.best))
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
