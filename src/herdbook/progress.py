"""Progress of long operations on standard error: a bar on a terminal; in pipes and logs, a plain line now and then."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
    if not sys.stderr.isatty():
        yield _lines(title, total)
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=title, disable=total == 0, file=sys.stderr) as bar:

        def advance() -> None:
            bar.update(1)

        yield advance


def _lines(title: str, total: int) -> Callable[[], None]:
    """Return a function that counts its calls, and prints a line if the last one was printed long ago."""
    start = printed = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, printed
        done += 1
        now = time.monotonic()
        # also at the end if lines were printed before, so that a log shows that the operation ended
        if now - printed >= INTERVAL_S or (done == total and printed > start):
            printed = now
            say(f"{title}: {done} of {total} after {now - start:.0f} s")

    return advance


def say(line: str) -> None:
    """Print a line to standard error, without breaking a progress bar."""
    if not sys.stderr.isatty():
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
        return
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
