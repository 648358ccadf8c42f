"""Which files of a source are wanted, and which are refused. Upstream is untrusted."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from herdbook.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

# What is taken along besides the weights: data that transformers and llama.cpp read, never code.
SIDE_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def check_name(name: str, what: str) -> str:
    """Return a file name if it stays inside its folder.

    Raises:
        SourceError: If it does not, or is no plain relative name.
    """
    parts = PurePosixPath(name).parts
    if (
        not parts
        or PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).drive
        or ".." in parts
        or "\\" in name
        or any(ord(letter) < 32 for letter in name)
    ):
        raise SourceError(f"{what}: the file name {name!r} leads out of its folder; refused")
    return name


def side_files(names: Iterable[str]) -> list[str]:
    """Return the files to take along besides the weights, sorted."""
    return sorted(set(names) & set(SIDE_FILES))
