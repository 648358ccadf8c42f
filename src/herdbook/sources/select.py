"""Which files of a source are used, and which are refused. Upstream is untrusted."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from herdbook import jsonio, limits
from herdbook.errors import SourceError
from herdbook.layout import CONFIG, GENERATION_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

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
# All files of a model besides its weights.
SIDE_FILES = (*TOKENIZER_FILES, CONFIG, GENERATION_CONFIG)


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


def has_chat_template(names: Collection[str], read: Callable[[str], bytes], what: str) -> bool:
    """Return whether transformers finds a chat template for a single message in a model's files.

    Args:
        names: The names of the files.
        read: Returns the content of one of them.
        what: The source, for error messages.

    Raises:
        SourceError: If the tokenizer's configuration is damaged.
    """
    if CHAT_TEMPLATE in names:  # it replaces the one in the configuration
        return bool(read(CHAT_TEMPLATE))
    if TOKENIZER_CONFIG not in names:
        return False
    try:
        template = jsonio.load(read(TOKENIZER_CONFIG), limits.DOCUMENT).get("chat_template")
    except (ValueError, AttributeError) as error:
        raise SourceError(f"{what}: its {TOKENIZER_CONFIG} is not a JSON object: {error}") from error
    if isinstance(template, list):  # several templates by name, of which the default is used
        return any(isinstance(one, dict) and one.get("name") == "default" for one in template)
    return bool(template)
