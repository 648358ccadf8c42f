"""A pseudo-terminal in which a program runs, and the pictures that it drew there."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

ROWS, COLUMNS = 30, 110
STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
REDRAWN = re.compile(
    r"(?:\r?\x1b\[2K|\x1b\[1A)+"
)  # rich takes a drawing away line by line before it draws the next


def watch(command, cwd, environment, heard=None):
    """Run a program in a terminal of its own.

    Args:
        command: The program and its arguments.
        cwd: Its folder.
        environment: Its variables; the terminal's kind is added.
        heard: If given, called with the process and all that it wrote so far, each time that it wrote something.

    Returns:
        The exit status, and all that it wrote.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    sizeless = {name: value for name, value in environment.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**sizeless, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
        if heard:
            heard(process, seen)
    os.close(ours)
    return process.wait(), seen.decode("utf-8", errors="replace")


def pictures(text):
    """Return what stood on the screen below what had scrolled by, each time that it was drawn anew, without colours."""
    return [plain(piece).strip("\n") for piece in REDRAWN.split(text)]


def plain(text):
    """Return a text without what steers a terminal."""
    return STEERING.sub("", text).replace("\r", "")
