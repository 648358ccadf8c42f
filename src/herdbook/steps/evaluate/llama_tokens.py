"""Whether llama.cpp cuts text into the tokens into which the model's own tokenizer cuts it.

A file whose vocabulary lost its scores, or whose way to split text is another one, gives other tokens than the model was trained
with, and no error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError

if TYPE_CHECKING:
    from herdbook.steps.evaluate.llama_runtime import Runtime

# Ordinary text of several kinds: words, numbers, punctuation, code, several languages.
TEXTS = (
    "The capital of France is Paris, and that of Peru is Lima.",
    "In 1984, 3.14159 was rounded to 3.142; see section 12.",
    "It's what we've always done, isn't it? \u201cNot quite,\u201d she said.",
    "def add(first, second):\n    return first + second\n",
    "Gr\u00fc\u00dfe aus K\u00f6ln, \u00e7a va bien, \u00bfqu\u00e9 tal?",
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002",
)


def check_tokens(runtime: Runtime, tokenizer: Any, file: str) -> None:
    """Check that a file's tokens are those of a tokenizer, with and without the token that begins a text.

    Args:
        runtime: The file, open at least for its vocabulary.
        tokenizer: The model's tokenizer in transformers.
        file: The file's name in the error.

    Raises:
        StepError: If they differ.
    """
    for text in TEXTS:
        for begin in (False, True):
            expected = list(tokenizer(text, add_special_tokens=begin)["input_ids"])
            if begin and tokenizer.eos_token_id is not None and expected[-1:] == [tokenizer.eos_token_id]:
                expected.pop()  # llama.cpp adds the token that ends a text in embeddings only
            found = runtime.tokens(text, begin=begin)
            if found == expected:
                continue
            at = next(
                (
                    place
                    for place, pair in enumerate(zip(found, expected, strict=False))
                    if pair[0] != pair[1]
                ),
                min(len(found), len(expected)),
            )
            raise StepError(
                f"{file}: llama.cpp cuts {text!r} into other tokens than the model's tokenizer: from number {at + 1} on, "
                f"{found[at : at + 4]} in place of {expected[at : at + 4]}. Do not release it: the tokenizer was not "
                "converted as it is. Use the tokenizer of another model, or leave `quantize` out."
            )
