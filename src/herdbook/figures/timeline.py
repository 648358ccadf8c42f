"""A timeline: when the jobs of each rule ran. Times in which nothing ran are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.escape import xml
from herdbook.figures.svg import BLUE, FAINT, MARGIN, SMALL, WIDTH, document, fit, heading, label, line
from herdbook.humanize import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROW, BAR, NAMES = 22.0, 12.0, 92.0  # heights of a row and of a bar; the width of the names at the left
TICKS = 3
LEAST = 1.5  # the width of the shortest bar


@dataclass(frozen=True)
class Ran:
    """A job that ran: its rule, when it began and ended in seconds, and its name."""

    rule: str
    begun: float
    ended: float
    name: str


def draw_timeline(jobs: Sequence[Ran], title: str) -> str:
    """Return the picture as SVG, a row for each rule in the order of the jobs."""
    shapes, top = heading(MARGIN, title)
    top += 10
    rules = list(dict.fromkeys(job.rule for job in jobs))
    busy = merged((job.begun, job.ended) for job in jobs)
    total = sum(end - begin for begin, end in busy) or 1.0
    left, right = MARGIN + NAMES, WIDTH - MARGIN
    bottom = top + ROW * len(rules)

    def x(moment: float) -> float:
        """Return the place of a moment: how long anything had run before it."""
        before = sum(min(end, moment) - begin for begin, end in busy if begin < moment)
        return left + (right - left) * before / total

    for number in range(TICKS + 1):
        at = left + (right - left) * number / TICKS
        shapes.append(line(at, top, at, bottom, "hb-grid"))
        anchor = "end" if number == TICKS else "middle"
        shapes.append(
            label(at, bottom + 16, duration(total * number / TICKS), SMALL, anchor=anchor, ink=FAINT)
        )
    for number, rule in enumerate(rules):
        y = top + ROW * number
        shapes.append(label(MARGIN, y + 15, fit(rule, SMALL, NAMES - 8), SMALL))
        for job in (job for job in jobs if job.rule == rule):
            begin = x(job.begun)
            width = max(LEAST, x(job.ended) - begin)
            shapes.append(
                f'<rect x="{begin:.1f}" y="{y + 5:.1f}" width="{width:.1f}" height="{BAR:g}" rx="2" fill="{BLUE}" '
                f'fill-opacity="0.75"><title>{xml(job.name)}</title></rect>'
            )
    return document(bottom + 16 + MARGIN, title, shapes)


def merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return spans of time, in order, of which none touches another."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found
