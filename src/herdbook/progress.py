"""Progress of long work on standard error: a bar where a person watches, nothing that floods a log elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def track(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how far a loop is.

    Args:
        title: What is being done.
        total: How many steps it has; nothing is shown if there are none.

    Yields:
        A function to call after each step.
    """
    watched = sys.stderr.isatty()
    with tqdm(
        total=total, desc=title, disable=total == 0, mininterval=0.1 if watched else 10, file=sys.stderr
    ) as bar:

        def advance() -> None:
            bar.update(1)

        yield advance


def say(line: str) -> None:
    """Print a line to standard error, without breaking a bar that may be shown."""
    tqdm.write(line, file=sys.stderr)
