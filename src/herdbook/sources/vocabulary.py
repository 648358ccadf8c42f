"""Vocabularies: the tokens of a tokenizer and their ids, from its files alone. No code of a source is run."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.errors import SourceError
from herdbook.sources.growth import check_growth
from herdbook.sources.tokenizer_settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    Vocabulary = dict[str, int]

TOKENIZER = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"
WORDS = "vocab.json"
ADDED = "added_tokens.json"
SETTINGS = "tokenizer_config.json"
NAMED = "special_tokens_map.json"
# The keys under which the last two name special tokens.
SPECIAL = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
# The first line of a vocabulary in tiktoken's format, which is also stored under the name `tokenizer.model`.
TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")
# Protocol Buffers: kinds of fields.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST = 70  # bits of an integer of ten bytes
PIECES = 1  # a field of SentencePiece's `ModelProto`
TEXT, SCORE, KIND = 1, 2, 3  # fields of its `SentencePiece`
NORMAL = 1  # the kind of a piece that states none


@dataclass(frozen=True)
class Piece:
    """A token of SentencePiece.

    Args:
        text: Its text.
        score: Its score.
        kind: ``SentencePiece.Type``: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    """

    text: str
    score: float
    kind: int


def read_vocabulary(names: Collection[str], read: Callable[[str], bytes], what: str) -> Vocabulary | None:
    """Return the id of each token of a source.

    transformers prefers the same file: ``tokenizer.json``, then ``tokenizer.model`` of SentencePiece, then ``vocab.json``.
    Tokens that were added later are in the same file, in ``tokenizer_config.json`` or else in files of older versions. Special
    tokens that are only named get the next ids when transformers loads the tokenizer.

    Args:
        names: Names of the source's files.
        read: Returns the content of one of them.
        what: The source, for error messages.

    Returns:
        The vocabulary; None if the source has none of these files, or ``tokenizer.model`` is of another format.

    Raises:
        SourceError: If a file is not of its format.
    """
    file = next((name for name in (TOKENIZER, SENTENCEPIECE, WORDS) if name in names), None)
    if file is None:
        return None
    try:
        vocabulary = {TOKENIZER: _fast, SENTENCEPIECE: _sentencepiece, WORDS: _words}[file](read(file))
        if vocabulary is None:
            return None
        settings: dict[str, Any] = {}
        if SETTINGS in names:
            file = SETTINGS
            settings = read_settings(read(file))
        added = settings.get("added_tokens_decoder")
        for number, token in (added or {}).items():
            vocabulary.setdefault(_content(token), int(number))
        if added is None and ADDED in names:
            file = ADDED
            vocabulary = {**_words(read(file)), **vocabulary}
        if added is None and NAMED in names:
            file = NAMED
            settings |= read_settings(read(file))
        for token in named_special(settings):
            vocabulary.setdefault(token, max(vocabulary.values(), default=-1) + 1)
    except limits.OverLimitError as error:
        raise SourceError(f"{what}: refused: {file} {error}") from error
    except (
        ValueError,
        OverflowError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        struct.error,
    ) as error:
        raise SourceError(
            f"{what}: {file} is not of the form that transformers writes ({error!r})"
        ) from error
    return vocabulary


def _fast(content: bytes) -> Vocabulary:
    """Read the format of the library tokenizers."""
    tokenizer = jsonio.load(content, limits.TOKENIZER)
    check_growth(tokenizer.get("normalizer"))
    tokens = tokenizer["model"]["vocab"]
    if isinstance(tokens, list):  # with scores, in the order of their ids
        listed = [token for token, _ in tokens]
        tokens = {token: number for number, token in enumerate(listed)}
        if len(tokens) < len(listed):
            raise ValueError(f"it has the token {_twice(listed)!r} twice")
    return _checked(
        {**tokens, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}}
    )


def _content(token: Any) -> str:
    return str(token if isinstance(token, str) else token["content"])


def named_special(settings: dict[str, Any]) -> Iterator[str]:
    """Yield the special tokens that a tokenizer's settings name."""
    for key in SPECIAL:
        if settings.get(key):
            yield _content(settings[key])
    for key in MORE_SPECIAL:
        more = settings.get(key) or []
        yield from map(_content, more.values() if isinstance(more, dict) else more)


def _words(content: bytes) -> Vocabulary:
    return _checked(jsonio.load(content, limits.TOKENIZER))


def _checked(tokens: dict[Any, Any]) -> Vocabulary:
    for token, number in tokens.items():
        if type(number) is not int or number < 0:
            raise ValueError(f"token {token!r} has id {number!r}")
    if len(set(tokens.values())) < len(tokens):
        by_id: dict[int, str] = {}
        one, other, number = next(
            (before, token, number)
            for token, number in tokens.items()
            if (before := by_id.setdefault(number, token)) != token
        )
        raise ValueError(f"tokens {one!r} and {other!r} both have id {number}")
    return tokens


def _sentencepiece(content: bytes) -> Vocabulary | None:
    if TIKTOKEN.match(content):
        return None
    pieces = read_pieces(content)
    found = {piece.text: number for number, piece in enumerate(pieces)}
    if len(found) < len(pieces):
        raise ValueError(f"it has the token {_twice([piece.text for piece in pieces])!r} twice")
    return found


def _twice(tokens: list[str]) -> str:
    """Return the first token of a list that is in it once more."""
    last = {token: number for number, token in enumerate(tokens)}
    return next(token for number, token in enumerate(tokens) if last[token] != number)


def read_pieces(content: bytes) -> list[Piece]:
    """Read SentencePiece's format, in which a token's id is its place. Source: ``sentencepiece_model.proto``.

    Raises:
        ValueError, IndexError, KeyError, struct.error: If it is not of that format.
    """
    pieces: list[Piece] = []
    for number, piece in _fields(content):
        if number != PIECES:
            continue
        if len(pieces) == limits.TOKENS:
            raise limits.OverLimitError(f"has more than {limits.TOKENS:,} tokens")
        fields: dict[int, Any] = dict(_fields(piece))
        score = struct.unpack("<f", fields[SCORE])[0] if SCORE in fields else 0.0
        pieces.append(Piece(fields[TEXT].decode("utf-8"), score, fields.get(KIND, NORMAL)))
    if not pieces:
        raise ValueError("it has no tokens")
    return pieces


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and content of the fields of a message in Protocol Buffers: an integer, or bytes."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > LONGEST:
                raise ValueError("it has an integer of more than 64 bits")
            if byte < 0x80:
                return value

    while at < len(message):
        tag = number()
        kind = tag & 7
        if kind == VARINT:
            yield tag >> 3, number()
            continue
        if kind == BYTES:
            length = number()
        elif kind in {FIXED64, FIXED32}:
            length = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"it has a field of the unknown kind {kind}")
        if at + length > len(message):
            raise ValueError("it ends in the middle of a field")
        yield tag >> 3, message[at : at + length]
        at += length
