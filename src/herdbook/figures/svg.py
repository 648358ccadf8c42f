"""The shapes that the figures consist of, and an estimate of the width of text.

Figures are 480 pixels wide at most, so that on a phone their text is still legible. Colors are of two kinds: those of paper and ink
are classes, which follow the reader's light or dark scheme; those of data are the palette of Okabe and Ito, which people with any
color vision can distinguish on both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.escape import one_line, xml

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH, MARGIN = 480.0, 14.0
TITLE, TEXT, SMALL = 14.0, 13.0, 12.0  # sizes of text
# Source: Okabe and Ito 2008, Color Universal Design.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, GRAY = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#8a8a8a",
)
INK, FAINT = "hb-ink", "hb-faint"
STYLE = (
    ".hb-ground{fill:#fdfcf8;stroke:#d8d4c8}.hb-ink{fill:#24221e}.hb-faint{fill:#65615a}.hb-band{fill:#eeeade}"
    ".hb-grid{stroke:#e2ded2}.hb-axis{stroke:#65615a}"
    "@media (prefers-color-scheme:dark){.hb-ground{fill:#16181c;stroke:#3a3e46}.hb-ink{fill:#e9e7e2}.hb-faint{fill:#a7a49c}"
    ".hb-band{fill:#262a31}.hb-grid{stroke:#31353c}.hb-axis{stroke:#a7a49c}}"
)
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BOLD = 1.1  # how much wider bold text is
NARROW, WIDE = set("fijlrtI.,:;'|!()[] "), set("mwMW@%")


def document(height: float, title: str, body: Iterable[str]) -> str:
    """Return a complete SVG document with a background."""
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{xml(title)}" font-family="{xml(FONT)}">'
        ),
        f"<title>{xml(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1:.0f}" height="{height - 1:.0f}" rx="8" class="hb-ground"/>',
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
    """Shorten text with an ellipsis in its middle until it fits: names often differ in their ends."""
    flat = one_line(text)
    if text_width(flat, size) <= width:
        return flat
    for kept in range(len(flat) - 1, 0, -1):
        head, tail = flat[: (kept + 1) // 2].rstrip(), flat[len(flat) - kept // 2 :].lstrip()
        if text_width(f"{head}…{tail}", size) <= width:
            return f"{head}…{tail}"
    return "…"


def wrap(text: str, size: float, width: float) -> list[str]:
    """Break text into lines that fit, at its spaces; a word that is too long is shortened."""
    lines = [""]
    for word in one_line(text).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [fit(line, size, width) for line in lines]


def label(
    x: float,
    y: float,
    text: str,
    size: float = TEXT,
    *,
    anchor: str = "start",
    ink: str = INK,
    bold: bool = False,
) -> str:
    """Return a line of text whose baseline is at ``y``."""
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" class="{ink}"{weight}>{xml(text)}</text>'


def heading(y: float, text: str) -> tuple[list[str], float]:
    """Return a title of as many lines as it needs, and where it ends; ``y`` is where it begins."""
    lines = wrap(text, TITLE * BOLD, WIDTH - 2 * MARGIN)
    shapes = [
        label(MARGIN, y + 18 * (number + 1) - 4, line, TITLE, bold=True) for number, line in enumerate(lines)
    ]
    return shapes, y + 18 * len(lines)


def line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    """Return a straight line; its color is a class of the style or a color of the palette."""
    stroke = f'stroke="{color}"' if color.startswith("#") else f'class="{color}"'
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {stroke} stroke-width="{width:g}"/>'
    )
