"""Tokenizers as transformers loads them, and the ids of prompts and texts. A text of which a word would be lost is refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError
from herdbook.limits import OverLimitError
from herdbook.sources.growth import check_growth

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORD = re.compile(r"\S*[^\W_]\S*")  # has a letter or a digit


def load_tokenizer(folder: Path) -> Any:
    """Return a folder's tokenizer. No code from the folder is run, and nothing is downloaded."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def tokenize(folder: Path, prompts: Sequence[str], *, chat_template: bool = False) -> list[list[int]]:
    """Return the token ids of each prompt, with the beginning-of-sequence token where the tokenizer has one.

    That token is prepended as text and no other special token is added, as in mergekit.

    Args:
        folder: The model.
        prompts: Texts.
        chat_template: Format each prompt as a user's message with the tokenizer's chat template instead, followed by the
            beginning of the answer.

    Raises:
        StepError: If the tokenizer has no token for a word of a prompt, or if there is no template, or it rejects a single
            message of a user.
    """
    tokenizer = load_tokenizer(folder)
    for number, prompt in enumerate(prompts, start=1):
        ids_of(tokenizer, prompt, f"prompt {number}")
    if not chat_template:
        start = tokenizer.bos_token or ""
        return [tokenizer(start + prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    if not tokenizer.chat_template:
        raise StepError(
            f"{folder}: its tokenizer has no chat template; remove `chat_template` from the recipe"
        )
    from jinja2 import TemplateError

    try:
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            for prompt in prompts
        ]
    except TemplateError as error:
        raise StepError(f"{folder}: its chat template failed: {error}") from error
    for number, text in enumerate(texts, start=1):
        _check_length(tokenizer, text, f"prompt {number}")
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


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
    _check_length(tokenizer, text, what)
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


def _check_length(tokenizer: Any, text: str, what: str) -> None:
    """Refuse a text of which the tokenizer's normalizer can make more than memory holds."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normalizer = backend.normalizer if backend else None
    try:
        if normalizer is not None:  # its state is its part of tokenizer.json
            check_growth(json.loads(normalizer.__getstate__()), len(text.encode(errors="replace")))
    except OverLimitError as error:
        raise StepError(f"{what}: refused: the tokenizer of {tokenizer.name_or_path} {error}") from error


def _lost_word(text: str, read: Sequence[tuple[int, int]]) -> str | None:
    """Return the first word of which no character is in one of the spans that were read; None if there is none.

    Single characters may be missing: some are joined with their neighbours before the text is cut into tokens.
    """
    covered = bytearray(len(text))
    for start, end in read:
        covered[start:end] = b"\1" * (end - start)
    words = (match for match in WORD.finditer(text) if not any(covered[match.start() : match.end()]))
    lost = next(words, None)
    return lost[0] if lost else None
