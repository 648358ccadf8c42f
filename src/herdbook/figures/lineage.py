"""The lineage: a layered drawing of the graph of models, sources above, files below."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from herdbook.escape import xml
from herdbook.figures.svg import FAINT, GROUND, INK, document, fit, label, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

MARGIN, GAP, LAYER_GAP = 24.0, 22.0, 74.0
HEIGHT, WIDTH, FILE_WIDTH, BEND_WIDTH = 46.0, 206.0, 126.0, 60.0
MIN_WIDTH = 480.0
COLORS = {  # fill and border of a box, by the operation that made it
    "fetch": ("#e9eef6", "#5b7aa8"),
    "adapter": ("#f1eaf6", "#8763a8"),
    "laser": ("#fbeee0", "#bf7a30"),
    "merge": ("#f8eaec", "#b05566"),
    "moe": ("#e6f2ea", "#3f8a5c"),
    "file": ("#f3f1ea", "#8a8474"),
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


@dataclass
class _Item:
    """A box in its layer, or a bend of an edge that passes through the layer."""

    id: str
    width: float
    layer: int
    x: float = 0.0  # of its center
    above: list[_Item] = field(default_factory=list)


def draw_lineage(boxes: Sequence[Box], edges: Sequence[Edge], title: str) -> str:
    """Return the drawing as SVG.

    A box's layer is the length of the longest path to it. Within a layer, boxes are sorted by the mean position of their
    parents; ties keep the given order. An edge over several layers has a bend in each, so that it does not cross boxes.

    Args:
        boxes: Parents before children.
        edges: At most one between two boxes.
        title: The title, also the text alternative.
    """
    layers, chains = _arrange(boxes, edges)
    by_id = {box.id: box for box in boxes}
    inner = max(sum(item.width for item in layer) + GAP * (len(layer) - 1) for layer in layers)
    inner = max(inner, MIN_WIDTH - 2 * MARGIN)
    for layer in layers:
        x = MARGIN + (inner - sum(item.width for item in layer) - GAP * (len(layer) - 1)) / 2
        for item in layer:
            item.x = x + item.width / 2
            x += item.width + GAP
    paths = []
    labels = []
    for edge, chain in zip(edges, chains, strict=True):
        points = _points(edge, chain, edges, chains)
        color = COLORS[by_id[edge.end].kind][1]
        paths.append(
            f'<path d="{_curve(points)}" fill="none" stroke="{color}" stroke-width="1.5" opacity="0.85"/>'
        )
        if edge.label:
            labels += _tag(points[-2], points[-1], edge.label)
    shapes = [
        shape
        for layer in layers
        for item in layer
        if item.id in by_id
        for shape in _box(by_id[item.id], item)
    ]
    height = 2 * MARGIN + len(layers) * HEIGHT + (len(layers) - 1) * LAYER_GAP
    return document(inner + 2 * MARGIN, height, title, [*paths, *shapes, *labels])


def _arrange(boxes: Sequence[Box], edges: Sequence[Edge]) -> tuple[list[list[_Item]], list[list[_Item]]]:
    depth: dict[str, int] = {}
    for box in boxes:
        depth[box.id] = max((depth[edge.start] + 1 for edge in edges if edge.end == box.id), default=0)
    layers: list[list[_Item]] = [[] for _ in range(max(depth.values()) + 1)]
    items: dict[str, _Item] = {}
    for box in boxes:
        items[box.id] = _Item(box.id, FILE_WIDTH if box.kind == "file" else WIDTH, depth[box.id])
        layers[depth[box.id]].append(items[box.id])
    chains = []
    for index, edge in enumerate(edges):
        chain = [items[edge.start]]
        for level in range(depth[edge.start] + 1, depth[edge.end]):
            bend = _Item(f"\0{index}.{level}", BEND_WIDTH, level, above=[chain[-1]])
            layers[level].append(bend)
            chain.append(bend)
        items[edge.end].above.append(chain[-1])
        chains.append([*chain, items[edge.end]])
    for upper, layer in itertools.pairwise(layers):
        position = {
            item.id: index / max(1, len(upper) - 1) if len(upper) > 1 else 0.5
            for index, item in enumerate(upper)
        }
        layer.sort(
            key=lambda item: sum(position[p.id] for p in item.above) / len(item.above) if item.above else 1.0
        )
    return layers, chains


def _points(
    edge: Edge, chain: list[_Item], edges: Sequence[Edge], chains: list[list[_Item]]
) -> list[tuple[float, float]]:
    """Return the points where an edge leaves, bends and arrives; edges at one side of a box are spread over it."""
    leaving = sorted(
        (other[1].x, index) for index, other in enumerate(chains) if edges[index].start == edge.start
    )
    arriving = sorted(
        (other[-2].x, index) for index, other in enumerate(chains) if edges[index].end == edge.end
    )
    own = next(index for index, other in enumerate(chains) if other is chain)
    points = [(_spread(chain[0], [i for _, i in leaving], own), _top(chain[0]) + HEIGHT)]
    for bend in chain[1:-1]:
        points += [(bend.x, _top(bend)), (bend.x, _top(bend) + HEIGHT)]
    return [*points, (_spread(chain[-1], [i for _, i in arriving], own), _top(chain[-1]))]


def _spread(item: _Item, sharing: list[int], own: int) -> float:
    share = (sharing.index(own) + 1) / (len(sharing) + 1)
    return item.x + (share - 0.5) * item.width * 0.7


def _top(item: _Item) -> float:
    return MARGIN + item.layer * (HEIGHT + LAYER_GAP)


def _curve(points: list[tuple[float, float]]) -> str:
    (x, y), *rest = points
    commands = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        middle = (y + to_y) / 2
        commands.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return " ".join(commands)


def _tag(start: tuple[float, float], end: tuple[float, float], text: str) -> list[str]:
    """Return an edge's label, near its start, where the edges to one child are still apart."""
    t = 0.36
    near, far = (1 - t) ** 3 + 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2 + t**3
    x = near * start[0] + far * end[0]
    y = start[1] + (end[1] - start[1]) * (1.5 * (1 - t) ** 2 * t + 1.5 * (1 - t) * t**2 + t**3)
    shown = fit(text, 11.5, WIDTH)
    width = text_width(shown, 11.5) + 8
    return [
        f'<rect x="{x - width / 2:.1f}" y="{y - 9:.1f}" width="{width:.1f}" height="17" rx="4" fill="{GROUND}" opacity="0.94"/>',
        label(x, y + 3.8, shown, 11.5, anchor="middle", fill=FAINT),
    ]


def _box(box: Box, item: _Item) -> list[str]:
    ground, edge = COLORS[box.kind]
    left, top = item.x - item.width / 2, _top(item)
    room = item.width - 14
    return [
        (
            f'<g><title>{xml(box.title)}: {xml(box.note)}</title><rect x="{left:.1f}" y="{top:.1f}" width="{item.width:.1f}" '
            f'height="{HEIGHT:.0f}" rx="7" fill="{ground}" stroke="{edge}" stroke-width="1.3"/></g>'
        ),
        label(item.x, top + 19.5, fit(box.title, 13.5, room), 13.5, anchor="middle", fill=INK, bold=True),
        label(item.x, top + 36, fit(box.note, 11.5, room), 11.5, anchor="middle", fill=FAINT),
    ]
