"""What the lock states about a source's tokenizer and generation config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.layout import GENERATION_CONFIG
from herdbook.lock.tokens import describe
from herdbook.lock.whole import read_config
from herdbook.sources.select import TOKENIZER_CONFIG, has_chat_template
from herdbook.sources.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from herdbook.lock.vocabulary import LockedTokens


@dataclass(frozen=True)
class SideFiles:
    """The fields of a lock's entry that are read from a source's files besides weights and configuration.

    Args:
        tokens: The pin of the vocabulary; None if there is none that can be read.
        generation: The content of the generation config.
        chat_template: Whether the tokenizer has a chat template.
    """

    tokens: LockedTokens | None
    generation: dict[str, Any]
    chat_template: bool


def read_side_files(names: Collection[str], read: Callable[[str], bytes], what: str) -> SideFiles:
    """Return what a source's files state.

    Args:
        names: The names of the files.
        read: Returns the content of one of them.
        what: The source, for error messages.

    Raises:
        SourceError: If a file is not of its format.
    """
    generation = (
        read_config(read(GENERATION_CONFIG), what, GENERATION_CONFIG) if GENERATION_CONFIG in names else {}
    )
    if TOKENIZER_CONFIG in names:
        read_config(read(TOKENIZER_CONFIG), what, TOKENIZER_CONFIG)
    return SideFiles(
        tokens=describe(read_vocabulary(names, read, what)),
        generation=generation,
        chat_template=has_chat_template(names, read, what),
    )
