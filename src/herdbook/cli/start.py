"""The program ``herdbook``: it has the server of its build run the command, or runs it itself."""

from __future__ import annotations

import sys

from herdbook.forkserver.client import ask


def main() -> int:
    """Run the command of this process, and return its exit status."""
    status = ask(sys.argv[1:])
    if status is None:
        from herdbook.cli.main import main as run  # takes a second

        status = run()
    return status
