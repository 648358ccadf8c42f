"""What a release is called whose configuration and card do not say it: by its files, or their folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Names of files, in letters alone, that say what a file is and not what is in it.
GENERIC = frozenset(
    [
        *("mergekit", "mergekitmoe", "mergekitconfig", "mergekitmoeconfig", "mergekitmulticonfig"),
        *("config", "configuration", "merge", "mergeconfig", "merged", "moe", "moeconfig", "mergemoe"),
        *("recipe", "model", "models", "readme", "card", "modelcard"),
    ]
)


@dataclass(frozen=True)
class Called:
    """A name of a release.

    Args:
        name: The name; empty if there is none.
        origin: What it is from, for the note.
    """

    name: str
    origin: str


def by_folder(path: Path, folder: str = "") -> Called:
    """Return the name of a configuration's folder, or ``folder`` in place of it."""
    return Called(plain(folder or path.resolve().parent.name), "the folder")


def by_files(path: Path, output: Path | None) -> Called:
    """Return the name of the recipe's file, or else the configuration's, or else its folder's; none that is generic."""
    for file, origin in ((output, "the output's name"), (path, "the configuration's name")):
        name = _of_file(file) if file else ""
        if name:
            return Called(name, origin)
    return by_folder(path)


def plain(name: str) -> str:
    """Return the last part of a name as a release can have it; empty if nothing of it can be."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.rpartition("/")[2]).strip("-._")


def _of_file(file: Path) -> str:
    """Return a file's name without its ending; empty if it is generic, or that of a device or a pipe."""
    if file.exists() and not file.is_file():
        return ""
    letters = re.sub(r"[^a-z]", "", file.stem.lower())
    return "" if letters in GENERIC else plain(file.stem)
