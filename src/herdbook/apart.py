"""Programs of our own that run in a process of their own, since unchecked files decide what a library does in it.

A program reads a question as JSON on its standard input, and prints its answer as JSON in the last line. It has limited time,
no network, and sets itself limits of memory and computing time before it looks at what a stranger wrote.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 300  # seconds; an honest model takes some, most of which are for the start of transformers
MEMORY = 4 << 30  # bytes, beyond what a program has when it starts to look at the question
Answer = dict[str, Any]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class FailedError(Exception):
    """A program that gave no answer; the message gives the reason, and begins with a verb: ``needs more than 300 seconds``."""


def ask(program: str, question: str, more_bytes: int = MEMORY, cpu_seconds: int | None = None) -> Answer:
    """Run a program, and return its answer.

    Args:
        program: The name of its module.
        question: JSON.
        more_bytes: What the program may allocate from when it looks at the question.
        cpu_seconds: How long it may compute from then on; as long as it runs if None.

    Raises:
        FailedError: If it gives none in time, or ends before.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", program],
            input=json.dumps([json.loads(question), more_bytes, cpu_seconds]),
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
    answer: Answer = json.loads(done.stdout.splitlines()[-1])
    return answer


def answer(reply: Callable[..., Answer]) -> None:
    """Answer the question on standard input; its entries are the arguments of ``reply``. Called by a program.

    What is imported before counts to the program itself, whose memory is not limited.
    """
    question, confine = read_question()
    with redirect_stdout(sys.stderr):
        confine()
        replied = reply(**question)
    write_answer(replied)


def read_question() -> tuple[dict[str, Any], Callable[[], None]]:
    """Return the question on standard input, and what sets this process the limits that came with it."""
    question, more_bytes, cpu_seconds = json.load(sys.stdin)
    return question, partial(_confine, more_bytes, cpu_seconds)


def write_answer(answer: Answer) -> None:
    """Print the answer, on a line of its own, whatever libraries print."""
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


def _confine(more_bytes: int, cpu_seconds: int | None) -> None:
    """Limit what this process may allocate from now on, where the system can, and how long it may compute.

    Beyond the first limit, allocations fail; beyond the second, the process ends.
    """
    try:
        import resource
    except ImportError:  # the time limit of `ask` remains
        return
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])  # of data and stacks
        most = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    if cpu_seconds is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
