"""The shapes that the figures consist of, and an estimate of the width of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.escape import one_line, xml

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUND, FRAME, INK, FAINT, GRID = "#fdfcf8", "#d8d4c8", "#24221e", "#6a665c", "#e6e2d6"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
NARROW, WIDE = set("fijlrtI.,:;'|!()[] "), set("mwMW@%")


def document(width: float, height: float, title: str, body: Iterable[str]) -> str:
    """Return a complete SVG document with a background."""
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{xml(title)}" font-family="{xml(FONT)}">'
        ),
        f"<title>{xml(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="8" fill="{GROUND}" stroke="{FRAME}"/>',
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def text_width(text: str, size: float) -> float:
    """Estimate the width of text in a common sans-serif face; the result is rather too large than too small."""
    return (
        sum(
            0.36
            if c in NARROW
            else 0.92
            if c in WIDE
            else 0.70
            if c.isupper()
            else 1.0
            if ord(c) > 0x2E7F
            else 0.6
            for c in text
        )
        * size
    )


def fit(text: str, size: float, width: float) -> str:
    """Shorten text with an ellipsis until it fits."""
    flat = one_line(text)
    if text_width(flat, size) <= width:
        return flat
    while flat and text_width(flat + "…", size) > width:
        flat = flat[:-1]
    return flat.rstrip() + "…"


def label(
    x: float, y: float, text: str, size: float, *, anchor: str = "start", fill: str = INK, bold: bool = False
) -> str:
    """Return a line of text whose baseline is at ``y``."""
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" fill="{fill}"{weight}>{xml(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width:g}"/>'
