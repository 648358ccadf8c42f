"""One build at a time in a results folder.

Two builds at once would make every file twice, and fail when one reads what the other is replacing. So the process that
runs the jobs holds an advisory lock (``flock``) on a file in the results folder. The kernel releases it when the process
ends, however it ends: a killed build leaves nothing to remove by hand. Jobs, dry runs and commands that read results
neither take the lock nor check it.

On NFS version 4, Linux passes the lock on to the server, so that builds on other hosts see it. If a file system does not
support locks, a warning is printed and the build continues without one.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from typing import TYPE_CHECKING, TextIO

from herdbook import flock
from herdbook.errors import StepError
from herdbook.progress import say

if TYPE_CHECKING:
    from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

_held: dict[Path, TextIO] = {}  # open files, kept until this process ends


def hold(path: Path, work: str) -> None:
    """Hold a lock until this process ends. Does nothing if this process holds it already.

    Args:
        path: The file to lock. It names the holder; it is not removed afterwards, and its content has no meaning then.
        work: What this process does, such as ``building recipe.yaml``, for the message to a process that is refused.

    Raises:
        StepError: If another process holds the lock; the message names process, host and work.
        OSError: If the file cannot be written.
    """
    absolute = path.absolute()
    if absolute in _held:
        return
    absolute.parent.mkdir(parents=True, exist_ok=True)
    file = absolute.open("a+", encoding="utf-8")
    try:
        flock.claim(file.fileno())
    except BlockingIOError:
        with file:
            raise StepError(_refusal(path, file, work)) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            file.close()
            raise
        say(
            f"warning: {path}: this file system does not support locks; do not start a second build in this folder"
        )
    file.truncate(0)
    json.dump({"host": socket.gethostname(), "pid": os.getpid(), "work": work}, file)
    file.flush()
    _held[absolute] = file


def _refusal(path: Path, file: TextIO, work: str) -> str:
    """Return a message about who holds a lock, and what to do."""
    file.seek(0)
    try:
        content = json.load(file)
        holder = f"process {content['pid']} on {content['host']} is {content['work']}"
    except (ValueError, KeyError, TypeError):  # it has just taken the lock, and not written its name yet
        holder = "another process is building"
    elsewhere = "; or build in another folder with --directory" if work.startswith("building") else ""
    return f"{path.parent}: {holder} in this folder ({path} is locked). Wait until it has ended, or stop it{elsewhere}."
