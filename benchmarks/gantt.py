"""A schedule as a drawing: a bar for each task, with the critical path highlighted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.figures.svg import FAINT, INK, MARGIN, WIDTH, document, fit, label, line, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schedule import Schedule, Task

BAR, ROW = 12.0, 15.0
NAME = 190.0  # the most that a name takes
GRID = "hb-grid"
PATH, OTHER = "#b4532a", "#b9c6da"
STEPS = (60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000)  # seconds from one tick to the next


def draw(schedule: Schedule, path: Sequence[Task], title: str) -> str:
    """Return a schedule as SVG. Tasks are sorted by their beginning, each in a row of its own."""
    critical = {task.name for task in path}
    rows = sorted(schedule.runs.items(), key=lambda item: (item[1].begin, item[1].end, item[0]))
    left, right, top = MARGIN, WIDTH - MARGIN, MARGIN + 30
    bottom = top + ROW * len(rows)
    scale = (right - left) / schedule.seconds
    step = next((seconds for seconds in STEPS if schedule.seconds / seconds <= 8), STEPS[-1])
    body = [label(left, MARGIN + 12, title, 14, bold=True)]
    for tick in range(0, int(schedule.seconds) + 1, step):
        x = left + tick * scale
        body += [
            line(x, top, x, bottom, GRID),
            label(x, bottom + 16, _clock(tick), 11, anchor="middle", ink=FAINT),
        ]
    for number, (name, run) in enumerate(rows):
        x, y, width = left + run.begin * scale, top + ROW * number, max(1.0, (run.end - run.begin) * scale)
        fill = PATH if name in critical else OTHER
        body.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR:.0f}" rx="2" fill="{fill}"/>'
        )
        shown = fit(name, 10, NAME)
        beside = x + width + 5
        ink = INK if name in critical else FAINT
        if beside + text_width(shown, 10) < right:
            body.append(label(beside, y + 10, shown, 10, ink=ink))
        else:
            body.append(label(x - 5, y + 10, shown, 10, anchor="end", ink=ink))
    return document(bottom + MARGIN + 10, title, body)


def _clock(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds // 60 % 60:02}" if seconds else "0"
