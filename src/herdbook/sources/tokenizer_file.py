"""Tokens that were added to a tokenizer, and the files of a tokenizer that gets more. No code of a source is run.

transformers reads added tokens from ``tokenizer.json`` or from ``tokenizer_config.json``, by version and class, so that both
are written.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.sources.select import CHAT_TEMPLATE, TOKENIZER_CONFIG
from herdbook.sources.tokenizer_settings import read_settings
from herdbook.sources.vocabulary import SETTINGS, TOKENIZER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

DECODER = "added_tokens_decoder"


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in a text before the text is cut into others, with the settings of the library tokenizers."""

    content: str
    special: bool = False
    normalized: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


def read_added(names: Collection[str], read: Callable[[str], bytes]) -> dict[int, AddedToken]:
    """Return the tokens that were added to a source's tokenizer, by id: those that its files list with their settings.

    Args:
        names: Names of the source's files.
        read: Returns the content of one of them.

    Raises:
        ValueError: If a token has settings that the library tokenizers does not have; other errors if files are not of their form.
    """
    found: dict[int, AddedToken] = {}
    if SETTINGS in names:
        decoder = read_settings(read(SETTINGS)).get(DECODER) or {}
        found = {int(number): _added(token) for number, token in decoder.items()}
    if TOKENIZER in names:
        tokenizer = jsonio.load(read(TOKENIZER), limits.TOKENIZER)
        found |= {token["id"]: _added(token) for token in tokenizer.get("added_tokens") or []}
    return dict(sorted(found.items()))


def tokenizer_files(
    names: Collection[str],
    read: Callable[[str], bytes],
    added: Mapping[int, AddedToken],
    template: str | None,
) -> dict[str, bytes]:
    """Return the files of a source's tokenizer that change if tokens are added or it gets another chat template.

    Args:
        names: Names of the source's files.
        read: Returns the content of one of them.
        added: The tokens, by id: the ids that follow the highest one, or those of tokens that were ordinary ones.
        template: The chat template; None to keep the source's.

    Returns:
        The content of each changed file, by name.
    """
    changed: dict[str, Any] = {}
    if added:
        tokenizer = jsonio.load(read(TOKENIZER), limits.TOKENIZER)
        tokens = {token["id"]: token for token in tokenizer.get("added_tokens") or []}
        tokens |= {number: {"id": number, **asdict(token)} for number, token in added.items()}
        changed[TOKENIZER] = {**tokenizer, "added_tokens": [tokens[number] for number in sorted(tokens)]}
    if TOKENIZER_CONFIG in names and (added or template is not None):
        settings = read_settings(read(TOKENIZER_CONFIG))
        if added:
            every = {**read_added(names, read), **added}
            settings[DECODER] = {str(number): asdict(every[number]) for number in sorted(every)}
        if template is not None:
            settings["chat_template"] = template
        changed[TOKENIZER_CONFIG] = settings
    files = {name: _text(content) for name, content in changed.items()}
    if template is not None and CHAT_TEMPLATE in names:  # it comes before the one in the settings
        files[CHAT_TEMPLATE] = template.encode()
    return files


def _added(token: Any) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token)
    known = {name: token[name] for name in AddedToken.__dataclass_fields__ if name in token}
    wrong = [name for name, value in known.items() if type(value) is not (str if name == "content" else bool)]
    if wrong:
        raise ValueError(f"an added token has {wrong[0]} {known[wrong[0]]!r}")
    return AddedToken(**known)


def _text(content: Any) -> bytes:
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a character, which only JSON can represent
        return (json.dumps(content, indent=2) + "\n").encode()
