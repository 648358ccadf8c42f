"""The heat map: a row for each kind of matrix or text, a column for each layer, a shade for each share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from herdbook.escape import xml
from herdbook.figures.svg import (
    BLUE,
    FAINT,
    GRAY,
    MARGIN,
    SMALL,
    WIDTH,
    document,
    fit,
    heading,
    label,
    text_width,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROW, MAX_CELL, MAX_NAME = 22.0, 30.0, 170.0
PALEST = 0.08  # opacity of a share of nothing, so that it differs from a cell without a share


def draw_heatmap(
    shares: Mapping[tuple[str, int], float],
    kinds: Sequence[str],
    layers: Sequence[int],
    title: str,
    of: str,
    missing: str = "",
) -> str:
    """Return the map as SVG. Its scale ends at the largest share, rounded up to tenths.

    Args:
        shares: Shares by kind and layer, 0 to 1.
        kinds: Rows, from the top.
        layers: Columns, from the left.
        title: Its title.
        of: The quantity that is shared, such as ``of the rank kept``.
        missing: The text for a cell without a share.
    """
    names = min(MAX_NAME, max(text_width(kind, SMALL) for kind in kinds) + 4)
    left = MARGIN + names + 6
    cell = min(MAX_CELL, (WIDTH - MARGIN - left) / len(layers))
    most = max(1, math.ceil(10 * float(max(shares.values(), default=1)) - 1e-9)) / 10
    body, top = heading(MARGIN, title)
    top += 8
    for row, kind in enumerate(kinds):
        y = top + ROW * row
        body.append(label(left - 6, y + 16, fit(kind, SMALL, names), SMALL, anchor="end"))
        for column, layer in enumerate(layers):
            share = shares.get((kind, layer))
            name = f"{kind}, layer {layer}: {missing if share is None else f'{share:.1%} {of}'}"
            body += _cell(left + cell * column, y, cell, share, most, name)
    bottom = top + ROW * len(kinds)
    step = max(1, math.ceil(26 / cell))
    body += [
        label(left + cell * (column + 0.5), bottom + 16, str(layer), SMALL, anchor="middle", ink=FAINT)
        for column, layer in enumerate(layers)
        if column % step == 0
    ]
    body.append(label(left - 6, bottom + 16, "layer", SMALL, anchor="end", ink=FAINT))
    body += _legend(bottom + 40, most, of, missing)
    return document(bottom + 40 + MARGIN, title, body)


def _cell(x: float, y: float, width: float, share: float | None, most: float, name: str) -> list[str]:
    described = f"<title>{xml(name)}</title>"
    if share is None:
        return [
            f'<circle cx="{x + width / 2:.1f}" cy="{y + ROW / 2:.1f}" r="1.3" fill="{GRAY}">{described}</circle>'
        ]
    return [
        (
            f'<rect x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{width - 1:.1f}" height="{ROW - 1:.1f}" fill="{BLUE}" '
            f'fill-opacity="{_opacity(share, most)}">{described}</rect>'
        )
    ]


def _opacity(share: float, most: float) -> str:
    return f"{PALEST + (1 - PALEST) * min(float(share) / most, 1):.3f}"


def _legend(y: float, most: float, of: str, missing: str) -> list[str]:
    """Return the scale: eleven steps from nothing to the largest share, and the sign of a cell without a share."""
    first = MARGIN + text_width("0 %", SMALL) + 6
    shapes = [label(MARGIN, y, "0 %", SMALL, ink=FAINT)]
    shapes += [
        f'<rect x="{first + 12 * step:.1f}" y="{y - 10:.1f}" width="12" height="11" fill="{BLUE}" '
        f'fill-opacity="{_opacity(most * step / 10, most)}"/>'
        for step in range(11)
    ]
    end = f"{most:.0%} {of}".replace("%", " %", 1)
    shapes.append(label(first + 138, y, end, SMALL, ink=FAINT))
    if missing:
        x = first + 138 + text_width(end, SMALL) + 18
        shapes.append(f'<circle cx="{x:.1f}" cy="{y - 4:.1f}" r="1.3" fill="{GRAY}"/>')
        shapes.append(label(x + 8, y, missing, SMALL, ink=FAINT))
    return shapes
