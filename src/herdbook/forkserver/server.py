"""The server: it waits for requests, forks a process for each, and tells how it ended."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.forkserver.client import ENDS, ROOT, SIZE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 10.0  # for a request that has begun to come
PIECE = 1 << 20


class RequestError(Exception):
    """What has come is no request."""


@dataclass(frozen=True)
class Request:
    """What a program asks for.

    Args:
        arguments: The arguments of the command.
        environment: Its environment variables.
        folder: Its working directory.
        ignored: The signals that it ignores, of those that end a program.
        process: The number of the program's own process.
        root: The folder of the program's code.
        umask: Its mask for the modes of new files.
        files: Open files: its standard input, output and error.
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    ignored: list[int]
    process: int
    root: str
    umask: int
    files: tuple[int, int, int]

    def assume(self) -> None:
        """Turn this process into the one that was asked for."""
        for number, file in enumerate(self.files):
            os.dup2(file, number)
            os.close(file)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty())  # type: ignore[union-attr]
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        os.umask(self.umask)
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text(title(self.process), encoding="ascii")

    def close(self) -> None:
        """Close the program's files."""
        for file in self.files:
            os.close(file)


def title(process: int) -> str:
    """Return the name of the process that stands in for another one, by that one's number. Names have up to 15 characters."""
    return f"job {process}"


class Server:
    """The process that forks.

    It has one thread, since a fork has only the thread that forks, and would wait for ever for a lock that another one holds.

    Args:
        listening: The socket at which programs ask.
        build: A pipe that ends when the build does.
        prepare: Called before a fork, with the arguments of the command. It returns whether a fork can run it; else the program
            does that itself.
    """

    def __init__(self, listening: socket.socket, build: int, prepare: Callable[[list[str]], bool]) -> None:
        self._listening, self._build, self._prepare = listening, build, prepare
        # By the number of the process, the connection to who asked for it.
        self._asked: dict[int, socket.socket] = {}
        for ignored in ENDS:  # it ends with its build
            signal.signal(ignored, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)  # that could have ended it until now
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._ended, told = socket.socketpair()
        for one in (self._ended, told):
            one.setblocking(False)
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        self._told = told
        self._waiting = selectors.DefaultSelector()
        for file in (listening, self._ended, build):
            self._waiting.register(file, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """Serve until the build has ended, and the last process too.

        Returns:
            In each process that it forks, the request; None in the server itself, at its end.
        """
        building = True
        while building or self._asked:
            for key, _ in self._waiting.select():
                if key.fileobj is self._ended:
                    self._ended.recv(PIECE)
                    self._reap()
                elif key.fileobj == self._build:
                    self._waiting.unregister(self._build)
                    self._waiting.unregister(self._listening)
                    self._listening.close()
                    building = False
                elif key.fileobj is self._listening:
                    if building and (request := self._answer(self._listening.accept()[0])):
                        return request
                else:
                    self._kill(key.fileobj)
        return None

    def _answer(self, connection: socket.socket) -> Request | None:
        """Fork the process that a program asks for, and return the request in it."""
        connection.settimeout(PATIENCE_S)
        try:
            request = receive(connection)
        except RequestError:
            connection.close()
            return None
        if request.root != ROOT or not self._prepare(request.arguments):
            connection.close()
            request.close()
            return None
        gc.freeze()  # pages of what is there stay shared
        process = os.fork()
        if not process:
            self._leave(connection, request.ignored)
            return request
        request.close()
        self._asked[process] = connection
        self._waiting.register(connection, selectors.EVENT_READ)
        with contextlib.suppress(OSError):  # who asked is gone: selected next
            connection.sendall(b"%d\n" % process)
        return None

    def _leave(self, connection: socket.socket, ignored: list[int]) -> None:
        """Close, in a forked process, what is the server's."""
        signal.set_wakeup_fd(-1)
        self._waiting.close()
        for one in (self._listening, self._ended, self._told, connection, *self._asked.values()):
            one.close()
        os.close(self._build)
        for number in {*ENDS, signal.SIGCHLD}.difference(ignored):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _reap(self) -> None:
        """Tell the programs how their processes ended."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                process, status = ended
                with contextlib.suppress(OSError), self._asked.pop(process) as connection:
                    with contextlib.suppress(KeyError):  # it was killed, and nobody waits
                        self._waiting.unregister(connection)
                    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))

    def _kill(self, connection: Any) -> None:
        """Kill the process of a program that is gone, unless it has just ended."""
        for process, one in self._asked.items():
            if one is connection:
                self._waiting.unregister(connection)
                os.kill(process, signal.SIGKILL)


def receive(connection: socket.socket) -> Request:
    """Return what a program asks for.

    Raises:
        RequestError: If it asks for nothing, is gone, or is silent for too long.
    """
    files: list[int] = []
    try:
        content, files, _, _ = socket.recv_fds(connection, PIECE, 3)
        while len(content) < SIZE_BYTES + int.from_bytes(content[:SIZE_BYTES], "little"):
            more = connection.recv(PIECE)
            if not more:
                break
            content += more
        standard_input, output, error = files
        return Request(**json.loads(content[SIZE_BYTES:]), files=(standard_input, output, error))
    except (OSError, ValueError, TypeError) as error:
        for file in files:
            os.close(file)
        raise RequestError from error
