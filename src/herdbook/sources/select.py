"""Which files of a source are used, and which are refused. Upstream is untrusted."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from herdbook.errors import SourceError
from herdbook.layout import CONFIG, GENERATION_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterable

CHAT_TEMPLATE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
# The files of the tokenizer and the chat template that transformers and llama.cpp read: data, never code.
TOKENIZER_FILES = (
    "added_tokens.json",
    CHAT_TEMPLATE,
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    TOKENIZER_CONFIG,
    "vocab.json",
)
# How a model that also reads images gets numbers of them.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
# All files of a model besides its weights.
SIDE_FILES = (*TOKENIZER_FILES, *PROCESSOR_FILES, CONFIG, GENERATION_CONFIG)


def check_name(name: str, what: str) -> str:
    """Return a file name if it stays inside its folder.

    Raises:
        SourceError: If it does not, or is not a plain relative path.
    """
    if (
        any(part in {"", ".", ".."} for part in name.split("/"))
        or "\\" in name
        or PureWindowsPath(name).drive
        or any(ord(letter) < 32 or ord(letter) == 127 for letter in name)
    ):
        raise SourceError(f"{what}: refused: the file name {name!r} leads out of its folder")
    return name


def side_files(names: Iterable[str]) -> list[str]:
    """Return those of the names that are files of a model besides its weights, sorted."""
    return sorted(set(names) & set(SIDE_FILES))
