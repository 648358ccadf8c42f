"""Tokenizers as transformers loads them, and the ids of texts. A text of which a word would be lost is refused."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError
from herdbook.limits import OverLimitError
from herdbook.sources.growth import check_growth

if TYPE_CHECKING:
    from collections.abc import Sequence

WORD = re.compile(r"\S*[^\W_]\S*")  # has a letter or a digit


def load_tokenizer(folder: str | Path) -> Any:
    """Return a folder's tokenizer, for reading. No code from the folder is run, and nothing is downloaded.

    It is loaded once for as long as the folder's files stay the same.
    """
    files = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    return _loaded(str(folder), tuple((file.name, *_written(file)) for file in files))


def _written(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=4)  # a step has one or two; each takes a second and tens of megabytes
def _loaded(folder: str, _: tuple[tuple[str, int, int, int], ...]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def ids_of(tokenizer: Any, text: str, what: str) -> list[int]:
    """Return the token ids of a text alone, without special tokens.

    A tokenizer that is loaded as another kind than its files are of has no tokens for most texts, and leaves them out without a
    word. transformers 5 decides by ``model_type`` before the declared class.

    Args:
        tokenizer: The tokenizer.
        text: The text.
        what: What the text is, for error messages.

    Raises:
        StepError: If its normalizer can make the text too long, or if a word of the text has no token, not even that of unknown words.
    """
    check_length(tokenizer, text, what)
    encoded = tokenizer(
        text, add_special_tokens=False, verbose=False, return_offsets_mapping=tokenizer.is_fast
    )
    ids: list[int] = encoded["input_ids"]
    read = encoded["offset_mapping"] if tokenizer.is_fast else [(0, len(text))] * bool(ids)
    lost = _lost_word(text, read)
    if lost is not None:
        raise StepError(
            f"{what}: the tokenizer of {tokenizer.name_or_path}, which transformers loads as {type(tokenizer).__name__}, has no "
            f"token for {lost!r} and would leave it out. Check that `model_type` in config.json and `tokenizer_class` in "
            "tokenizer_config.json fit its tokenizer.json"
        )
    return ids


def check_length(tokenizer: Any, text: str, what: str) -> None:
    """Refuse a text of which the tokenizer's normalizer can make more than memory holds."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normalizer = backend.normalizer if backend else None
    try:
        if normalizer is not None:  # its state is its part of tokenizer.json
            check_growth(json.loads(normalizer.__getstate__()), len(text.encode(errors="replace")))
    except OverLimitError as error:
        raise StepError(f"{what}: refused: the tokenizer of {tokenizer.name_or_path} {error}") from error


def _lost_word(text: str, read: Sequence[tuple[int, int]]) -> str | None:
    """Return the first word of which no character is in one of the spans that were read; None without one.

    Single characters may be missing: some are joined with their neighbours before the text is cut into tokens.
    """
    covered = bytearray(len(text))
    for start, end in read:
        covered[start:end] = b"\1" * (end - start)
    words = (match for match in WORD.finditer(text) if not any(covered[match.start() : match.end()]))
    lost = next(words, None)
    return lost[0] if lost else None
