"""What the lock states about a source's tokenizer and generation config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.architectures.config import wrong_generation
from herdbook.errors import SourceError
from herdbook.layout import GENERATION_CONFIG
from herdbook.lock.tokens import describe
from herdbook.lock.whole import read_config
from herdbook.sources.select import PROCESSOR_FILES, TOKENIZER_CONFIG
from herdbook.sources.template_syntax import wrong_template
from herdbook.sources.tokenizer_settings import DEFAULT, read_settings, read_templates
from herdbook.sources.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from herdbook.lock.vocabulary import LockedTokens


@dataclass(frozen=True)
class Tokenizer:
    """The fields of a lock's entry that are read from a tokenizer's files.

    Args:
        tokens: The pin of the vocabulary; None if none can be read.
        padding: The token that fills up texts; empty if none is named.
        chat_template: Whether it has a chat template.
    """

    tokens: LockedTokens | None
    padding: str
    chat_template: bool


@dataclass(frozen=True)
class SideFiles:
    """What a lock's entry states of a source's files besides weights and configuration.

    Args:
        tokenizer: Its tokenizer.
        generation: The content of the generation config.
    """

    tokenizer: Tokenizer
    generation: dict[str, Any]


def read_tokenizer(names: Collection[str], read: Callable[[str], bytes], what: str) -> Tokenizer:
    """Return what a tokenizer's files state.

    Args:
        names: The names of the files, among others.
        read: Returns the content of one of them.
        what: The source, for error messages.

    Raises:
        SourceError: If a file is not of its format, or a chat template not one.
    """
    try:
        settings = read_settings(read(TOKENIZER_CONFIG)) if TOKENIZER_CONFIG in names else {}
    except limits.OverLimitError as error:
        raise SourceError(f"{what}: refused: its {TOKENIZER_CONFIG} {error}") from error
    except ValueError as error:
        problems = str(error).split("\n")
        raise SourceError("\n".join(f"{what}: its {TOKENIZER_CONFIG}: {one}" for one in problems)) from error
    try:
        templates = read_templates(names, read)
    except UnicodeDecodeError as error:
        raise SourceError(f"{what}: its chat template is not UTF-8 (byte {error.start + 1:,})") from error
    if problem := wrong_template(templates.values()):
        raise SourceError(
            f"{what}: its chat template is not one that transformers can use: {problem}. Use a revision or a copy with one that is, "
            "or without"
        )
    padding = settings.get("pad_token") or ""
    return Tokenizer(
        tokens=describe(read_vocabulary(names, read, what)),
        padding=str(padding.get("content") if isinstance(padding, dict) else padding),
        chat_template=DEFAULT in templates,
    )


def read_side_files(names: Collection[str], read: Callable[[str], bytes], what: str) -> SideFiles:
    """Return what a source's files besides weights and configuration state.

    Args:
        names: The names of the files.
        read: Returns the content of one of them.
        what: The source, for error messages.

    Raises:
        SourceError: As ``read_tokenizer``; and if a file leads to code.
    """
    generation = (
        read_config(read(GENERATION_CONFIG), what, GENERATION_CONFIG) if GENERATION_CONFIG in names else {}
    )
    if problems := wrong_generation(generation):
        raise SourceError("\n".join(f"{what}: {GENERATION_CONFIG}: {problem}" for problem in problems))
    for name in (TOKENIZER_CONFIG, *PROCESSOR_FILES):
        if name in names:
            read_config(read(name), what, name)
    return SideFiles(read_tokenizer(names, read, what), generation)
