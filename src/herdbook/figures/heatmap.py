"""The heat map: a row for each kind of matrix or text, a column for each layer, a shade for each share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.escape import xml
from herdbook.figures.svg import FAINT, GRID, INK, document, fit, label, text_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, MARGIN, ROW, HEAD = 860.0, 24.0, 26.0, 40.0
MAX_NAME = 260.0
LEAST, MOST = (238, 232, 213), (38, 84, 124)  # RGB of the shades for 0 % and 100 %


def draw_heatmap(
    shares: Mapping[tuple[str, int], float],
    kinds: Sequence[str],
    layers: Sequence[int],
    title: str,
    of: str,
    missing: str = "",
) -> str:
    """Return the map as SVG.

    Args:
        shares: Shares by kind and layer, 0 to 1.
        kinds: Rows, from the top.
        layers: Columns, from the left.
        title: Its title.
        of: The quantity that is shared, such as ``of the rank kept``.
        missing: The text for a cell without a share.
    """
    names = min(MAX_NAME, max(text_width(kind, 12) for kind in kinds) + 8)
    left = MARGIN + names + 8
    cell = min(40.0, (WIDTH - MARGIN - left) / len(layers))
    bottom = MARGIN + HEAD + ROW * len(kinds)
    body = [label(MARGIN, MARGIN + 12, fit(title, 14, WIDTH - 2 * MARGIN), 14, bold=True)]
    for row, kind in enumerate(kinds):
        top = MARGIN + HEAD + ROW * row
        body.append(label(left - 8, top + 17, fit(kind, 12, names), 12, anchor="end"))
        for column, layer in enumerate(layers):
            body += _cell(
                left + cell * column,
                top,
                cell,
                shares.get((kind, layer)),
                f"{kind}, layer {layer}",
                of,
                missing,
            )
    label_step = max(1, round(24 / cell + 0.49))
    for column, layer in enumerate(layers):
        if column % label_step == 0:
            body.append(
                label(left + cell * (column + 0.5), bottom + 16, str(layer), 11, anchor="middle", fill=FAINT)
            )
    body.append(label(left, bottom + 38, "layer", 11, fill=FAINT))
    body += _legend(WIDTH - MARGIN - 170 - text_width(f"100 % {of}", 11), bottom + 38, of)
    return document(WIDTH, bottom + 58, title, body)


def _cell(
    x: float, y: float, width: float, share: float | None, name: str, of: str, missing: str
) -> list[str]:
    fill = "none" if share is None else _shade(share)
    value = missing if share is None else f"{share:.1%} {of}"
    shapes = [
        (
            f'<rect x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{width - 1:.1f}" height="{ROW - 1:.1f}" fill="{fill}" '
            f'stroke="{GRID}"><title>{xml(f"{name}: {value}")}</title></rect>'
        )
    ]
    if share is not None and width >= 24:
        ink = INK if share < 0.55 else "#ffffff"
        shapes.append(label(x + width / 2, y + 17, f"{100 * share:.0f}", 10, anchor="middle", fill=ink))
    return shapes


def _shade(share: float) -> str:
    return "#" + "".join(
        f"{round(low + (high - low) * share):02x}" for low, high in zip(LEAST, MOST, strict=True)
    )


def _legend(x: float, y: float, of: str) -> list[str]:
    steps = [
        f'<rect x="{x + 12 * step:.1f}" y="{y - 9:.1f}" width="12" height="10" fill="{_shade(step / 10)}"/>'
        for step in range(11)
    ]
    return [
        label(x - 6, y, "0 %", 11, anchor="end", fill=FAINT),
        *steps,
        label(x + 138, y, f"100 % {of}", 11, fill=FAINT),
    ]
