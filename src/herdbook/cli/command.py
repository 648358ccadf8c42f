"""What a command of ``herdbook`` is to the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


class Add(Protocol):
    """Adds a command to the parser and returns the command's own."""

    def __call__(
        self, name: str, text: str, run: Callable[[argparse.Namespace], int | None], *, recipe: bool = True
    ) -> argparse.ArgumentParser:
        """Add a command.

        Args:
            name: The command.
            text: What it does, for help: begins in lower case, has no full stop.
            run: Runs it; what it returns is the exit status.
            recipe: Whether it takes ``--recipe`` and ``--results``.
        """
