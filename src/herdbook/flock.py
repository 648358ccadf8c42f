"""Advisory locks on open files, which the kernel releases when the process ends, however it ends.

POSIX systems have them. Elsewhere every call fails like one on a file system without locks, which all callers expect.
"""

from __future__ import annotations

import errno

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


def claim(handle: int) -> None:
    """Lock an open file or folder for as long as it is open, in this process or in one that inherits it. Does not wait.

    Args:
        handle: Its descriptor.

    Raises:
        BlockingIOError: If it is locked already.
        OSError: If the system or the file system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, "this system has no locks on files")
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
