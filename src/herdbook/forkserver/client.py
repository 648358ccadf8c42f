"""The side of `herdbook`: asking the server for a process. It imports little, since it is started for each job."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from herdbook.forkserver import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE_BYTES = 8  # of the length that precedes a request
ROOT = str(Path(__file__).parents[1])  # of the code that runs
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # how a person or a system ends a command


def ask(arguments: Sequence[str]) -> int | None:
    """Have the server of this build run a command, and return its exit status.

    A signal that ends the command also ends this process.

    Args:
        arguments: The arguments without the program's name.

    Returns:
        None if nothing was run, because there is no server, or it is one of another installation.
    """
    address = os.environ.get(VARIABLE)
    if not address:
        return None
    ignored = [number for number in ENDS if signal.getsignal(number) == signal.SIG_IGN]  # by nohup, say
    # A terminal interrupts the command as well, and this process waits for its end.
    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            _send(connection, arguments, ignored)
            replies = connection.makefile("rb")
            process = int(replies.readline())
        except (OSError, ValueError):  # the server is gone, or does not do it
            signal.signal(signal.SIGINT, before)
            if interrupted:
                raise KeyboardInterrupt from None
            return None
        return _wait(process, replies, ignored)


def _send(connection: socket.socket, arguments: Sequence[str], ignored: Sequence[int]) -> None:
    request = {
        "arguments": list(arguments),
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109 - as a text
        "ignored": list(ignored),
        "process": os.getpid(),
        "root": ROOT,
        "umask": _umask(),
    }
    if connection.fileno() <= 2:  # a standard file is closed, and would be this connection
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    content = json.dumps(request).encode()
    content = len(content).to_bytes(SIZE_BYTES, "little") + content
    sent = socket.send_fds(connection, [content], [0, 1, 2])
    if rest := content[sent:]:  # to send nothing would be an error if the command has already ended
        connection.sendall(rest)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _wait(process: int, replies: BinaryIO, ignored: Sequence[int]) -> int:
    """Wait until the process has ended; hand on what is to end this one."""

    def hand_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(process, number)

    for number in {signal.SIGTERM, signal.SIGHUP}.difference(ignored):
        signal.signal(number, hand_on)
    reply = replies.readline()
    if not reply:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        from herdbook.visible import say

        say("herdbook: the process from which the jobs of this build are forked was killed", file=sys.stderr)
        return 1
    status = int(reply)
    if status < 0:
        with contextlib.suppress(OSError):  # of SIGKILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status
