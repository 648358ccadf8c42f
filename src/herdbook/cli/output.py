"""The files that commands write beside what they print: reports as JSON and others, never over what is examined."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from herdbook.files import dump_json, write_output
from herdbook.visible import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def write_report(path: Path, value: Any) -> None:
    """Write a report as JSON (see ``write_output``); what is not visible in the text of strangers is written as JSON's escapes."""
    write_output(path, json_text(dump_json(value)))


def append_report(path: Path, text: str) -> None:
    """Append a report to a file that the user named, as UTF-8.

    Raises:
        OSError: If it cannot be written.
    """
    if number := _shown(path):
        # opened anew, a file would become longer behind the back of this process, whose next line would be written over that
        with os.fdopen(os.dup(number), "ab") as file:
            file.write(text.encode())
    else:
        with path.open("a", encoding="utf-8") as named:
            named.write(text)


def keep_apart(examined: Iterable[str | Path | None], written: Mapping[str, Path | None]) -> None:
    """Refuse to write into what a command only reads, or two reports to the same file.

    Args:
        examined: Folders and files that are read, or repositories on the Hub, which no path can be in.
        written: The path given to each option that names a file or folder to write; None if it was not given.

    Raises:
        click.UsageError: If one would be in a folder that is read, or be a file that is read, or be another one.
    """
    places = [Path(place) for place in examined if place is not None and Path(place).exists()]
    given = {option: path for option, path in written.items() if path is not None}
    for option, path in given.items():
        for place in places:
            if any(_contains(whole, part) for whole in _names(place) for part in _names(path)):
                what = f"is in {place}, which" if path != place else "is what"
                raise click.UsageError(f"{option} {path}: {what} is only read here; name another place")
    seen: dict[Path, str] = {}
    for option, path in given.items():
        # A device, a pipe, or the file that the output goes to takes several reports, one after the other.
        if path.exists() and (not path.is_file() or _shown(path)):
            continue
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise click.UsageError(f"{other} and {option} both name {path}; one would replace the other")


def _shown(path: Path) -> int:
    """Return the number of standard output or error if it goes to what is at a path; 0 if neither does."""
    for number in (1, 2):
        try:
            if os.path.samestat(path.stat(), os.fstat(number)):
                return number
        except OSError:  # there is nothing, or it is closed
            continue
    return 0


def _names(path: Path) -> tuple[Path, Path]:
    """Return a path as it was given, and where its links lead: one may be in a folder and the other not."""
    return path.absolute(), path.resolve()


def _contains(whole: Path, part: Path) -> bool:
    """Return whether a path is another one, or is below it."""
    return part == whole or whole in part.parents
