"""Entry point of ``herdbook``: runs one command, and turns an error into a message and an exit status."""

from __future__ import annotations

import io
import os
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from click.exceptions import Exit
from click.shell_completion import shell_complete

from herdbook.cli.commands import PROGRAM, herdbook
from herdbook.errors import HerdbookError, message
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

COMPLETE_VARIABLE = "_HERDBOOK_COMPLETE"  # set by click's script for the shell
INTERRUPTED = 130
# Switch off the progress bars of libraries; ours are in herdbook.progress.
NO_BARS = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status (see ``herdbook.errors``).

    Args:
        arguments: The arguments without the program's name (default: those of this process).
    """
    sys.excepthook = _show_traceback
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an encoding without a character is no reason to end
            stream.reconfigure(errors="backslashreplace")
    with _environment():
        if instruction := os.environ.get(COMPLETE_VARIABLE):
            return shell_complete(herdbook, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    name, debug = PROGRAM, False
    try:
        # Not click's own `main`, which does not distinguish interrupts, broken pipes and the end of a file.
        with herdbook.make_context(PROGRAM, arguments) as context:
            debug = context.params["debug"]
            try:
                status = herdbook.invoke(context) or 0
                sys.stdout.flush()
            finally:
                name = f"{PROGRAM} {context.invoked_subcommand or ''}".rstrip()
    except Exit as end:
        return end.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        say(*shown.getvalue().splitlines(), file=sys.stderr)
        return error.exit_code
    except HerdbookError as error:
        if debug:
            raise
        first, *rest = error.lines
        say(f"{name}: {first}", *rest, file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # the reader of the output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            raise
        say(f"{name}: {message(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say(
            f"{name}: interrupted; completed files are kept, run the command again to continue",
            file=sys.stderr,
        )
        return INTERRUPTED
    return int(status)


@contextmanager
def _environment() -> Iterator[None]:
    """Undo a command's changes to the environment at its end; without a terminal, switch off the libraries' bars."""
    before = dict(os.environ)
    if not sys.stderr.isatty():
        os.environ.update({name: value for name, value in NO_BARS.items() if name not in before})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback: text of strangers in it passes the filter, too."""
    from herdbook.hub import without_tokens

    text = "".join(traceback.format_exception(kind, error, trace))
    say(*without_tokens(text).rstrip("\n").split("\n"), file=sys.stderr)
