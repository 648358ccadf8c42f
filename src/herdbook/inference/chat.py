"""Prompts as a tokenizer's chat template formats them.

A chat template is a program in Jinja, written by whoever made the tokenizer. transformers keeps it from files and from
Python, but not from loops without an end and from texts of gigabytes. So it runs in a process of its own, which may take as much
time and memory as honest templates need many times over.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from herdbook import apart, limits
from herdbook.errors import StepError
from herdbook.inference.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHOWN = 300  # characters of a template's own message


def format_prompts(folder: Path, prompts: Sequence[str]) -> list[str]:
    """Return each prompt as a user's message in a chat, followed by the beginning of the answer.

    Args:
        folder: The model, whose tokenizer has a chat template.
        prompts: Texts.

    Raises:
        StepError: If the template rejects a single message of a user, takes too long, or makes texts that are too long.
    """
    try:
        answer = apart.ask(
            "herdbook.inference.chat",
            json.dumps({"folder": str(folder), "prompts": list(prompts)}),
            limits.TEMPLATE_MEMORY_BYTES,
            limits.TEMPLATE_SECONDS,
        )
    except apart.FailedError as error:
        raise StepError(
            f"{folder}: its chat template failed: it takes more than {limits.TEMPLATE_SECONDS} seconds or "
            f"{limits.TEMPLATE_MEMORY_BYTES:,} bytes (its process {error})"
        ) from error
    if "error" in answer:
        raise StepError(f"{folder}: its chat template failed: {answer['error']}")
    return [str(text) for text in answer["texts"]]


def _format(tokenizer: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """Return the ``texts``, or the ``error`` that kept them from being made."""
    from jinja2 import TemplateError

    texts, left = [], limits.NORMALIZED_BYTES
    try:
        for prompt in prompts:
            message = [{"role": "user", "content": prompt}]
            text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            left -= len(text)
            if left < 0:
                return {"error": f"it makes more than {limits.NORMALIZED_BYTES:,} characters of the prompts"}
            texts.append(text)
    except TemplateError as error:
        return {"error": str(error)[:SHOWN]}
    except MemoryError:
        return {"error": "it takes too much memory"}
    except Exception as error:  # noqa: BLE001 - a template can cause any error of Python's: 1 / 0, a comparison, deep recursion
        return {"error": f"{type(error).__name__}: {str(error)[:SHOWN]}"}
    return {"texts": texts}


def main() -> None:
    """Answer the question on standard input."""
    question, confine = apart.read_question()
    with redirect_stdout(sys.stderr):
        tokenizer = load_tokenizer(question["folder"])
        confine()
        answer = _format(tokenizer, question["prompts"])
    apart.write_answer(answer)


if __name__ == "__main__":
    main()
