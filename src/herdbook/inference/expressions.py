"""Regular expressions in a tokenizer's file, tried on texts in a process of their own.

A few characters can take years to be compared with a text, and the library ends a process in which a comparison takes many
steps. What ends in time in that program does so here, too; most tokenizers have no such expressions.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from herdbook import apart, limits
from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_time(tokenizer: Any, texts: Sequence[str], what: str) -> None:
    """Refuse texts for which a tokenizer's own regular expressions take too long.

    Args:
        tokenizer: The tokenizer, as it was loaded from a folder.
        texts: The texts.
        what: What they are, for error messages.

    Raises:
        StepError: If it takes longer than honest ones take many times over, or fails.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = (backend.normalizer, backend.pre_tokenizer) if backend else ()
    if backend is None or not any(_has_expression(json.loads(part.__getstate__())) for part in parts if part):
        return
    seconds = limits.TOKENIZER_SECONDS + sum(map(len, texts)) // limits.TOKENIZER_CHARACTERS_PER_SECOND
    try:
        apart.ask(
            "herdbook.inference.expressions",
            json.dumps({"tokenizer": backend.to_str(), "texts": list(texts)}),
            limits.TOKENIZER_MEMORY_BYTES,
            seconds,
        )
    except apart.FailedError as error:
        raise StepError(
            f"{what}: refused: the regular expressions of the tokenizer of {tokenizer.name_or_path} take more than {seconds} "
            f"seconds for it, or fail (its process {error})"
        ) from error


def _has_expression(part: Any) -> bool:
    """Return whether a part of ``tokenizer.json`` has a regular expression at any depth."""
    if isinstance(part, dict):
        return "Regex" in part or any(map(_has_expression, part.values()))
    return isinstance(part, list) and any(map(_has_expression, part))


def reply(tokenizer: str, texts: Sequence[str]) -> dict[str, str]:
    """Read each text, and end; or be ended."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_str(tokenizer)
    for text in texts:
        loaded.encode(text, add_special_tokens=False)
    return {}


def main() -> None:
    """Answer the question on standard input."""
    apart.answer(reply)


if __name__ == "__main__":
    main()
