"""The view's output: the bottom lines of a terminal, or plain lines without a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from herdbook.humanize import clipped, duration, size
from herdbook.view import words
from herdbook.visible import line, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.view.build import Build

EVERY_SECONDS = 60  # between lines on a build's progress, without a terminal
GAP = 2  # columns between those of the table of running jobs
NARROWEST = 12  # columns of a job's name
WIDE = 10_000  # columns without a terminal, so that no line is wrapped


class Lines:
    """Plain lines: one for each job that ends, and one per minute about the progress."""

    tick_seconds = 1.0

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(
            file=stream, width=WIDE, color_system=None, force_terminal=False, highlight=False
        )
        self._shown = 0.0  # when the progress was last printed

    def say(self, text: str, style: str = "") -> None:
        """Print text."""
        self._console.print(Text(visible(text), style))

    def show(self, build: Build, now: float) -> None:
        """Print the progress, unless it was printed within the last minute."""
        self._shown = self._shown or build.started
        if now - self._shown >= EVERY_SECONDS:
            self._shown = now
            running = ", ".join(f"{run.rule} {run.label}".rstrip() for run in build.running.values())
            self.say(f"{words.headline(build, now)}{': ' if running else ''}{running}")

    def tabulate(self, head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
        """Print a table."""
        self._console.print(_table(head, body))

    def close(self) -> None:
        """End the output."""


class Screen(Lines):
    """A terminal: completed jobs scroll by, progress and running jobs stay below them."""

    tick_seconds = 0.5

    def __init__(self, stream: TextIO, *, color: bool) -> None:
        super().__init__(stream)
        plain = None if color else True  # None: NO_COLOR decides
        self._console = Console(file=stream, force_terminal=True, no_color=plain, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def show(self, build: Build, now: float) -> None:
        """Draw the progress."""
        self._live.start()
        rows, width = max(3, self._console.height - 4), self._console.width
        self._live.update(picture(build, now, rows, width), refresh=True)

    def close(self) -> None:
        """Remove the drawing."""
        self._live.stop()


def picture(build: Build, now: float, rows: int, width: int) -> Group:
    """Return the progress of a build as a drawing: a line, a bar, and the running jobs.

    Args:
        build: The build.
        now: The time, by the clock of the events.
        rows: The largest number of jobs shown.
        width: The width of the terminal; names are shortened to fit, and numbers never.
    """
    table = Table.grid(padding=(0, GAP))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(no_wrap=True)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    runs = sorted(build.running.values(), key=lambda run: run.started)
    cells = [
        (
            line(run.rule),
            line(run.label),
            duration(run.seconds(now)),
            "" if run.memory_bytes is None else size(run.memory_bytes),
            words.amount(run.written_bytes, run.expected_bytes),
        )
        for run in runs[:rows]
    ]
    others = (0, 2, 3, 4)
    taken = sum(max((len(row[column]) for row in cells), default=0) + GAP for column in others)
    for row in cells:
        name = clipped(row[1], max(NARROWEST, width - taken))
        table.add_row(*(Text(name if column == 1 else cell) for column, cell in enumerate(row)))
    more = [Text(f"and {len(runs) - rows} more")] if len(runs) > rows else []
    bar = ProgressBar(total=max(1, build.total), completed=len(build.finished), width=None)
    return Group(
        Text(line(words.headline(build, now)), "bold"), Padding(bar), table, *more
    )  # padding, since a bar does not end its line


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="bold")
    for column, name in enumerate(head):
        table.add_column(name, justify="left" if column == 0 else "right", no_wrap=True)
    for row in body:
        table.add_row(*(Text(line(cell)) for cell in row))
    return table
