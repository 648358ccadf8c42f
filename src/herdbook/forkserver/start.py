"""Starting the server of a build, and stopping it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from herdbook.forkserver import VARIABLE

PROGRAM = "herdbook.cli.forked"
# Libraries read them when they are imported. A job sets torch's number of threads itself.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


_started: list[
    tuple[subprocess.Popen[bytes], int]
] = []  # the server of this process, and the pipe that it watches


def start() -> None:
    """Start a server, and name it to the processes that this one starts.

    It ends with this process, or by ``stop``. Without one, jobs make their imports themselves: so there is none where forks are
    not safe, or if the variable is set, be it to nothing, and what prevents one is no error.
    """
    if VARIABLE in os.environ or sys.platform != "linux":
        return
    try:
        folder = tempfile.mkdtemp(prefix="herdbook-")  # for this user alone; the server removes it
        address = str(Path(folder) / "socket")
        reading, writing = os.pipe()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(address)
            listening.listen(socket.SOMAXCONN)
            files = (listening.fileno(), reading)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", PROGRAM, *map(str, files)],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ONE_THREAD},
                pass_fds=files,
            )
        os.close(reading)
    except OSError:
        return
    os.environ[VARIABLE] = address
    _started.append((process, writing))


def stop() -> None:
    """End the server, after the last of its jobs: the time of their processors counts to this process from then on."""
    while _started:
        process, pipe = _started.pop()
        del os.environ[VARIABLE]
        os.close(pipe)
        process.wait()
