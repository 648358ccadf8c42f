"""Starting the server of a build, and stopping it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from herdbook.forkserver import VARIABLE
from herdbook.forkserver.client import ENDS

PROGRAM = "herdbook.cli.forked"
# Libraries read them when they are imported. A job sets torch's number of threads itself.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# The server of this process, and the pipe that it watches.
_started: list[tuple[subprocess.Popen[bytes], int]] = []


def start() -> None:
    """Start a server, and name it to the processes that this one starts.

    It ends with this process, or by ``stop``. Without one, jobs make their imports themselves: so there is none where forks are
    not safe, or if the variable is set, be it to nothing, and what prevents one is no error.
    """
    if VARIABLE in os.environ or sys.platform != "linux":
        return
    folder = None
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        folder = tempfile.mkdtemp(prefix="herdbook-")  # for this user alone; the server removes it
        address = str(Path(folder) / "socket")
        listening = opened.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(address)  # an error, too, of a long path
        listening.listen(socket.SOMAXCONN)
        reading, writing = os.pipe()
        opened.callback(os.close, reading)
        unless_started = opened.enter_context(contextlib.ExitStack())
        unless_started.callback(os.close, writing)
        process = _run((listening.fileno(), reading))
        unless_started.pop_all()
        os.environ[VARIABLE] = address
        _started.append((process, writing))
        return
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _run(files: tuple[int, int]) -> subprocess.Popen[bytes]:
    """Start the server with its files.

    Raises:
        OSError: If it cannot be started, or the files have numbers of standard files, since those of this process are closed.
    """
    if min(files) <= 2:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # until the server ignores them
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", PROGRAM, *map(str, files)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if sys.__stderr__ else subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD},
            pass_fds=files,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop() -> None:
    """End the server, after the last of its jobs: the time of their processors counts to this process from then on."""
    while _started:
        process, pipe = _started.pop()
        folder = Path(os.environ.pop(VARIABLE)).parent
        os.close(pipe)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)  # the server does it, unless it was killed
