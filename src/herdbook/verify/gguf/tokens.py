"""The tokens in a GGUF's header, from a model's tokenizer files: three ways, of which the converter takes the first that fits.

- ``tokenizer.model``: the pieces of SentencePiece with their scores and kinds; added tokens replace them.
- ``tokenizer.json`` with a fallback to bytes: its tokens, all with one score.
- any other ``tokenizer.json``: tokens of bytes, in GPT-2's spelling, and merges. How text is split before (``pre``) is not in
  the file explicitly: the converter recognizes it by the tokens of a text, so only the converter can determine it.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.architectures.gguf_forms import LLAMA_READERS, form_of
from herdbook.sources.vocabulary import (
    ADDED,
    NAMED,
    SENTENCEPIECE,
    SETTINGS,
    TOKENIZER,
    named_special,
    read_pieces,
    read_vocabulary,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from herdbook.weights.gguf_header import Value

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
ADDED_SCORE = -1000.0
OF_GPT2 = "GPT2Tokenizer"  # the class of a Phi-3's tokenizer that is not SentencePiece's
PADDING_SCORE = -10000.0
SPACE = "\u2581"  # in which SentencePiece spells a space
_BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
_LIKE_SPECIAL = re.compile(r"<pad>|<mask>|<2mass>|\[@BOS@\]|<\|.*\|>|<\uff5c.*\uff5c>|<unused.*>", re.DOTALL)


class TokenizerFiles:
    """A model's tokenizer files, each parsed once.

    Args:
        names: The names of the model's files.
        read: Returns the content of one of them.
    """

    def __init__(self, names: Collection[str], read: Callable[[str], bytes]) -> None:
        self.names, self.read = names, read
        self._parsed: dict[str, Any] = {}

    def json(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file; an empty one if the model has no such file.

        Raises:
            TypeError: If it is no JSON object.
            ValueError: If it is no JSON, or over its limit.
        """
        if name not in self.names:
            return {}
        if name not in self._parsed:
            limit = limits.TOKENIZER if name in {TOKENIZER, ADDED} else limits.DOCUMENT
            self._parsed[name] = jsonio.load(self.read(name), limit)
        if not isinstance(self._parsed[name], dict):
            raise TypeError(f"{name} is not a JSON object")
        return dict(self._parsed[name])

    def text(self, name: str) -> str:
        """Return the content of a text file, with the line ends that Python reads."""
        return self.read(name).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")

    @property
    def added(self) -> list[dict[str, Any]]:
        """The added tokens of ``tokenizer.json``."""
        return list(self.json(TOKENIZER).get("added_tokens") or [])

    @cached_property
    def named(self) -> set[str]:
        """The special tokens that its settings name."""
        settings = self.json(SETTINGS)
        if "added_tokens_decoder" not in settings:
            settings |= self.json(NAMED)
        return set(named_special(settings))

    @cached_property
    def is_sentencepiece(self) -> bool:
        """Whether the converter reads ``tokenizer.model``."""
        return SENTENCEPIECE in self.names

    @cached_property
    def has_bytes(self) -> bool:
        """Whether ``tokenizer.json`` is of the kind of Llama 2: merges with a fallback to bytes."""
        tokenizer = self.json(TOKENIZER)
        model, decoder = tokenizer["model"], tokenizer.get("decoder") or {}
        return (
            model["type"] == "BPE" and bool(model.get("byte_fallback")) and decoder.get("type") == "Sequence"
        )


def token_entries(files: TokenizerFiles, config: Mapping[str, Any]) -> dict[str, Value]:
    """Return the entries that are tokens, by the end of their keys (``tokenizer.ggml.``...).

    Raises:
        SourceError: If a file is not of its format.
        ValueError, LookupError, TypeError, AttributeError: The same.
    """
    form = form_of(config)
    readers = form.readers if form else LLAMA_READERS
    if "phi3" in readers and files.json(SETTINGS).get("tokenizer_class") != OF_GPT2:
        pieces = _of_sentencepiece(files, config["vocab_size"], files.added, spells=False)
        return {"model": "llama", "pre": "default", **pieces}
    if files.is_sentencepiece and "sentencepiece" in readers:
        return {"model": "llama", "pre": "default", **_of_sentencepiece(files, config["vocab_size"])}
    if files.has_bytes and "fallback" in readers:
        return {"model": "llama", "pre": "default", **_of_fallback(files)}
    return {"model": "gpt2", **_of_bytes(files, config["vocab_size"])}


def _of_sentencepiece(
    files: TokenizerFiles, rows: int, more: Iterable[Mapping[str, Any]] = (), *, spells: bool = True
) -> dict[str, Value]:
    """Return the tokens of SentencePiece's file and the added ones.

    Args:
        files: The model's tokenizer files.
        rows: The number of tokens, which is filled up.
        more: Added tokens of ``tokenizer.json``.
        spells: Whether added tokens that look special are taken for such, and others are spelled with spaces.
    """
    tokens = [f"[PAD{number}]" for number in range(rows)]
    scores, kinds = [PADDING_SCORE] * rows, [UNUSED] * rows

    def put(number: int, token: str, score: float, kind: int) -> None:
        if number < rows:
            tokens[number], scores[number], kinds[number] = token, score, kind

    for number, piece in enumerate(read_pieces(files.read(SENTENCEPIECE))):
        kind = piece.kind if piece.kind in {UNKNOWN, CONTROL, UNUSED, BYTE} else NORMAL
        put(number, piece.text, piece.score, kind)
    for token, number in files.json(ADDED).items():
        put(number, token, ADDED_SCORE, USER_DEFINED)
    decoder = files.json(SETTINGS).get("added_tokens_decoder") or {}
    added = [(int(number), about) for number, about in decoder.items()]
    for number, about in [*added, *((int(one["id"]), one) for one in more)]:
        token, special = about["content"], bool(about.get("special"))
        kind = _added_kind(token, special=special) if spells else CONTROL if special else USER_DEFINED
        put(number, _spelled(token, kind) if spells else token, ADDED_SCORE, kind)
    return {"tokens": tokens, "scores": scores, "token_type": kinds}


def _of_fallback(files: TokenizerFiles) -> dict[str, Value]:
    vocabulary = _vocabulary(files)
    size = len(files.json(TOKENIZER)["model"]["vocab"])
    by_id = {number: token for token, number in vocabulary.items()}
    added = sorted(
        (number, token)
        for token, number in vocabulary.items()
        if number >= size and (token in files.named or token in _added_flags(files))
    )
    tokens = [by_id[number] for number in range(size)] + [token for _, token in added]
    kinds = [
        BYTE if _BYTE_TOKEN.fullmatch(token) else CONTROL if token in files.named else NORMAL
        for token in tokens[:size]
    ]
    kinds += [CONTROL if token in files.named else USER_DEFINED for token in tokens[size:]]
    return {"tokens": tokens, "scores": [ADDED_SCORE] * len(tokens), "token_type": kinds}


def _of_bytes(files: TokenizerFiles, rows: int) -> dict[str, Value]:
    by_id = {number: token for token, number in _vocabulary(files).items()}
    special = _added_flags(files)
    tokens, kinds = [], []
    for number in range(rows):
        token = by_id.get(number)
        if token is None:
            token, kind = f"[PAD{number}]", UNUSED
        elif token in special:
            kind = _added_kind(token, special=special[token])
            token = _spelled(token, kind)
        else:
            kind = NORMAL
        tokens.append(token)
        kinds.append(kind)
    entries: dict[str, Value] = {"tokens": tokens, "token_type": kinds}
    merges = files.json(TOKENIZER)["model"].get("merges") or []
    if not merges and "merges.txt" in files.names:
        lines = [line.strip() for line in files.text("merges.txt").split("\n")]
        merges = [line for line in lines[1 if lines[0].startswith("#") else 0 :] if len(line.split()) == 2]
    if merges:
        entries["merges"] = [
            merge if isinstance(merge, str) else " ".join(part.replace(" ", "\u0120") for part in merge)
            for merge in merges
        ]
    return entries


def _vocabulary(files: TokenizerFiles) -> dict[str, int]:
    return read_vocabulary(files.names, files.read, "the model") or {}


def _added_flags(files: TokenizerFiles) -> dict[str, bool]:
    """Return the added tokens, each with whether it is special; the first statement counts, as in transformers."""
    flags = {token["content"]: bool(token.get("special")) for token in files.added}
    for about in (files.json(SETTINGS).get("added_tokens_decoder") or {}).values():
        flags.setdefault(about["content"], bool(about.get("special")))
    for token in files.named:
        flags.setdefault(token, True)
    return flags


def _added_kind(token: str, *, special: bool) -> int:
    return CONTROL if special or _LIKE_SPECIAL.fullmatch(token) else USER_DEFINED


def _spelled(token: str, kind: int) -> str:
    return token.replace(SPACE, " ") if kind == USER_DEFINED else token
