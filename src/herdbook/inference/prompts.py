"""The ids of prompts, as they are or as a chat template formats them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.inference.chat import format_prompts
from herdbook.inference.expressions import check_time
from herdbook.inference.tokenizer import check_length, ids_of, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def tokenize(folder: Path, prompts: Sequence[str], *, chat_template: bool = False) -> list[list[int]]:
    """Return the token ids of each prompt, with the beginning-of-sequence token where the tokenizer has one.

    That token is prepended as text and no other special token is added, as in mergekit.

    Args:
        folder: The model.
        prompts: Texts.
        chat_template: Format each prompt as a user's message with the tokenizer's chat template instead, followed by the
            beginning of the answer.

    Raises:
        StepError: If the tokenizer has no token for a word of a prompt, or if the tokenizer has no template, or it rejects a single
            message of a user.
    """
    tokenizer = load_tokenizer(folder)
    start = tokenizer.bos_token or ""
    check_time(tokenizer, [*prompts, *(start + prompt for prompt in prompts)], "prompts")
    for number, prompt in enumerate(prompts, start=1):
        ids_of(tokenizer, prompt, f"prompt {number}")
    if not chat_template:
        return [tokenizer(start + prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    if not tokenizer.chat_template:
        raise StepError(
            f"{folder}: its tokenizer has no chat template; remove `chat_template` from the recipe"
        )
    texts = format_prompts(folder, prompts)
    for number, text in enumerate(texts, start=1):
        check_length(tokenizer, text, f"prompt {number}")
    check_time(tokenizer, texts, "prompts")
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
