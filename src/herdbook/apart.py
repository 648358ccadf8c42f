"""Programs of our own that run in a process of their own, since files that nobody checked decide what a library does there.

A program reads a question as JSON on its standard input, and prints its answer as JSON in the last line. It has limited time,
limited memory, and no network.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 300  # seconds; an honest model takes some, most of which are for the start of transformers
MEMORY = 4 << 30  # bytes, beyond what a program has when it starts to look at the question
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class FailedError(Exception):
    """A program that gave no answer; the message says why, and begins as a verb does: ``needs more than 300 seconds``."""


def ask(program: str, question: str) -> dict[str, Any]:
    """Run a program, and return its answer.

    Args:
        program: The name of its module.
        question: JSON.

    Raises:
        FailedError: If it gives none in time, or ends before.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", program],
            input=question,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
            check=False,
            env={**os.environ, **OFFLINE},
        )
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"needs more than {LIMIT} seconds") from error
    if done.returncode:
        last = (done.stderr.splitlines() or ["no message"])[-1]
        raise FailedError(f"ended with status {done.returncode} ({last[:200]})")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def answer(reply: Callable[..., dict[str, Any]]) -> None:
    """Answer the question on standard input; its entries are the arguments of ``reply``. Called by a program.

    What is imported before counts to the program itself, whose memory is not limited.
    """
    question = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        _limit_memory()
        replied = reply(**question)
    sys.stdout.write(f"\n{json.dumps(replied)}\n")  # a line of its own, whatever libraries print


def _limit_memory() -> None:
    """Limit what the program may allocate from now on, where the system can."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])  # of data and stacks
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
