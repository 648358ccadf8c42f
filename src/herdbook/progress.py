"""Progress of long operations on standard error: a bar on a terminal; in pipes and logs, a plain line now and then."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from herdbook import visible
from herdbook.humanize import duration, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Between two lines in a log; operations that take less time print nothing.
INTERVAL_S = 30.0


@contextmanager
def track(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show the progress of a loop.

    Args:
        title: The name of the operation.
        total: Its number of steps; nothing is shown if it is 0.

    Yields:
        A function to call after each step.
    """
    with _tracked(title, total, str) as advance:
        yield lambda: advance(1)


@contextmanager
def track_bytes(title: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show how many bytes of a file were read or written, in the way of a download.

    Args:
        title: The name of the operation.
        size_bytes: The file's size; nothing is shown if it is 0.

    Yields:
        A function to call after each piece, with its size in bytes.
    """
    with _tracked(title, size_bytes, size, unit="B", unit_scale=True) as advance:
        yield advance


@contextmanager
def waiting(title: str) -> Iterator[Callable[[str], None]]:
    """Print a line now and then as long as something runs that counts no steps.

    Args:
        title: The name of the operation.

    Yields:
        A function to call with the name of what runs from now on.
    """
    doing, start, ended = title, time.monotonic(), threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL_S):
            say(f"{doing}: still running after {time.monotonic() - start:.0f} s")

    def change(to: str) -> None:
        nonlocal doing, start
        doing, start = to, time.monotonic()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield change
    finally:
        ended.set()
        watcher.join()


@contextmanager
def _tracked(
    title: str, total: int, show: Callable[[int], str], **settings: Any
) -> Iterator[Callable[[int], None]]:
    if not sys.stderr.isatty():
        yield _lines(title, total, show)
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=visible.line(title), disable=total == 0, file=sys.stderr, **settings) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance


def _lines(title: str, total: int, show: Callable[[int], str]) -> Callable[[int], None]:
    """Return a function that adds up what is done, and prints a line if the last one was printed long ago."""
    start = printed = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, printed
        done += count
        now = time.monotonic()
        # also at the end if lines were printed before, so that a log shows that the operation ended
        if now - printed >= INTERVAL_S or (done == total and printed > start):
            printed = now
            left = (
                f", about {duration((now - start) / done * (total - done))} left" if 0 < done < total else ""
            )
            say(f"{title}: {show(done)} of {show(total)} after {now - start:.0f} s{left}")

    return advance


def say(text: str) -> None:
    """Print a line to standard error, without breaking a progress bar."""
    if not sys.stderr.isatty():
        visible.say(text, file=sys.stderr)
        return
    from tqdm import tqdm

    tqdm.write(visible.line(text), file=sys.stderr)
