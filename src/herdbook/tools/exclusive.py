"""One build at a time in a results folder.

Two builds at once would make every file twice, and fail where one finds what the other is just replacing. So the process
that runs the jobs holds an advisory lock (``flock``) on a file in the results folder. The kernel drops it when the process
ends, however it ends: a build that was killed leaves nothing to remove by hand. Jobs, dry runs and commands that look at
results neither need the lock nor notice it.

On NFS version 4, Linux passes the lock on to the server, so that builds on other hosts see it. Where a file system keeps no
locks, a build goes on without one, and says so.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from typing import TYPE_CHECKING, TextIO

from herdbook.errors import StepError
from herdbook.progress import say

if TYPE_CHECKING:
    from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

_held: dict[Path, TextIO] = {}  # for as long as this process lives


def hold(path: Path, recipe: str) -> None:
    """Hold a lock until this process ends; once it is held, holding it again changes nothing.

    Args:
        path: The file that is locked. It says who holds it; after that it stays, and means nothing.
        recipe: What is built, for who is refused.

    Raises:
        StepError: If another process holds it; the message names process, host and recipe.
        OSError: If the file cannot be written.
    """
    place = path.absolute()
    if place in _held:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    file = place.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            raise StepError(_refusal(path, file)) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            file.close()
            raise
        say(f"warning: {path}: this file system keeps no locks; do not start a second build in this folder")
    file.truncate(0)
    json.dump({"host": socket.gethostname(), "pid": os.getpid(), "recipe": recipe}, file)
    file.flush()
    _held[place] = file


def _refusal(path: Path, file: TextIO) -> str:
    """Return who holds a lock, and what to do."""
    file.seek(0)
    try:
        said = json.load(file)
        holder = f"process {said['pid']} on {said['host']} builds {said['recipe']}"
    except (ValueError, KeyError, TypeError):  # it has just taken the lock, and not yet said who it is
        holder = "another process builds"
    return (
        f"{path.parent}: {holder} here ({path} is locked). Wait until it has ended, or end it; "
        "or build elsewhere with --directory."
    )
