"""The lineage: a row for each model and file, parents above children, connected by lines at the left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.escape import xml
from herdbook.figures.svg import (
    BLUE,
    BOLD,
    FAINT,
    GRAY,
    GREEN,
    MARGIN,
    ORANGE,
    PURPLE,
    SMALL,
    TITLE,
    VERMILION,
    WIDTH,
    document,
    fit,
    label,
    wrap,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

LANE, DOT = 16.0, 5.0
NAME, NOTE, SPACE = 18.0, 16.0, 12.0  # heights: of a name, of each line below it, and between rows
MAX_LANES = 12  # that are drawn apart; further ones share the last
COLORS = {  # of a dot and of the lines that lead to it, by the operation
    "fetch": BLUE,
    "adapter": PURPLE,
    "laser": ORANGE,
    "merge": VERMILION,
    "moe": GREEN,
    "compress": GRAY,
    "file": GRAY,
}


@dataclass(frozen=True)
class Box:
    """A model or a file.

    Args:
        id: Unique.
        title: Its name.
        note: How it was made, in a few words.
        kind: A key of ``COLORS``.
    """

    id: str
    title: str
    note: str
    kind: str


@dataclass(frozen=True)
class Edge:
    """An edge from a parent to a model or file that was made from it."""

    start: str
    end: str
    label: str = ""


@dataclass(frozen=True)
class _Row:
    """A box with its lane, the lines of text below its name, and where it begins."""

    box: Box
    lane: int
    lines: tuple[str, ...]
    top: float

    @property
    def y(self) -> float:
        return self.top + NAME - 6

    @property
    def bottom(self) -> float:
        return self.top + NAME + NOTE * len(self.lines)

    @property
    def x(self) -> float:
        return MARGIN + DOT + LANE * self.lane


def draw_lineage(boxes: Sequence[Box], edges: Sequence[Edge], title: str) -> str:
    """Return the drawing as SVG.

    Each box has a row. A line goes down from a box to the last of its children, and turns to each of them on the way. The
    text repeats the lines: from which models a model was made, and in which part.

    Args:
        boxes: Parents before children.
        edges: At most one between two boxes.
        title: The text alternative.
    """
    lanes = _lanes(boxes, edges)
    left = MARGIN + LANE * (max(lanes.values()) + 1) + 8
    rows: dict[str, _Row] = {}
    top = MARGIN
    for box in boxes:
        parents = [edge for edge in edges if edge.end == box.id]
        rows[box.id] = _Row(box, lanes[box.id], tuple(_lines(box, parents, boxes, left)), top)
        top = rows[box.id].bottom + SPACE
    paths = []
    for edge in edges:
        start, end = rows[edge.start], rows[edge.end]
        color = COLORS[end.box.kind]
        paths.append(f'<path d="{_path(start, end)}" fill="none" stroke="{color}" stroke-width="2"/>')
    shapes = [shape for row in rows.values() for shape in _shapes(row, left)]
    return document(top - SPACE + MARGIN, title, [*paths, *shapes])


def _lanes(boxes: Sequence[Box], edges: Sequence[Edge]) -> dict[str, int]:
    """Return a lane for each box: the leftmost that no line occupies between its row and that of its last child."""
    place = {box.id: number for number, box in enumerate(boxes)}
    last = {box.id: place[box.id] for box in boxes}
    for edge in edges:
        last[edge.start] = max(last[edge.start], place[edge.end])
    lanes: dict[str, int] = {}
    for box in boxes:
        taken = {lanes[other] for other in lanes if last[other] > place[box.id]}
        lanes[box.id] = min(next(lane for lane in range(len(boxes)) if lane not in taken), MAX_LANES - 1)
    return lanes


def _lines(box: Box, parents: Sequence[Edge], boxes: Sequence[Box], left: float) -> list[str]:
    """Return the text below a name: how it was made, and from which models."""
    titles = {other.id: other.title for other in boxes}
    room = WIDTH - MARGIN - left
    if box.kind == "file" or not parents:
        return [fit(box.note, SMALL, room)]
    if len(parents) == 1:
        return wrap(f"{box.note}, from {titles[parents[0].start]}", SMALL, room)
    roles = (f"{titles[edge.start]}: {edge.label}" if edge.label else titles[edge.start] for edge in parents)
    return [fit(box.note, SMALL, room), *(fit(f"· {role}", SMALL, room) for role in roles)]


def _path(start: _Row, end: _Row) -> str:
    """Return the line from a parent down its lane and over to a child."""
    if start.lane == end.lane:
        return f"M{start.x:.1f} {start.y:.1f}V{end.y:.1f}"
    turn = end.y - 18
    return (
        f"M{start.x:.1f} {start.y:.1f}V{turn:.1f}C{start.x:.1f} {end.y - 6:.1f} {end.x:.1f} {turn + 2:.1f} "
        f"{end.x:.1f} {end.y:.1f}"
    )


def _shapes(row: _Row, left: float) -> list[str]:
    box = row.box
    dot = f'<circle cx="{row.x:.1f}" cy="{row.y:.1f}" r="{DOT:g}" fill="{COLORS[box.kind]}"/>'
    if box.kind == "file":
        dot = (
            f'<rect x="{row.x - DOT:.1f}" y="{row.y - DOT:.1f}" width="{2 * DOT:g}" height="{2 * DOT:g}" '
            f'fill="{COLORS[box.kind]}"/>'
        )
    room = WIDTH - MARGIN - left
    return [
        f"<g><title>{xml(box.title)}: {xml(box.note)}</title>{dot}</g>",
        label(left, row.top + NAME - 2, fit(box.title, TITLE * BOLD, room), TITLE, bold=True),
        *(
            label(left, row.top + NAME + NOTE * (number + 1) - 3, text, SMALL, ink=FAINT)
            for number, text in enumerate(row.lines)
        ),
    ]
