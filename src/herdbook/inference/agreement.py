"""A program that compares the tokens into which transformers cuts texts with those of the tokenizer's own file.

transformers chooses the class of a tokenizer by ``model_type``, by the class that ``tokenizer_config.json`` names, and by tables of
its own. Some of these classes build a tokenizer of their own form around the vocabulary, whatever form the file has.

Not compared are texts that begin with a space, before which a Llama's class adds none in transformers 5, and letters that are
written as several characters, which a Qwen's class joins.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.apart import answer
from herdbook.inference.tokenizer import load_tokenizer
from herdbook.sources.vocabulary import SENTENCEPIECE, TIKTOKEN, TOKENIZER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXTS = (
    "The herd book names sire and dam, 1234567 of them: it's proven!",
    "two  spaces,   three\tand a tab\nlines\n\n    return x[i] += 0.5;",
    "Größe, naïve, żółw, Ελληνικά, Русский, עברית, العربية, हिन्दी",
    "日本語と中文 한국어 １２３ＡＢＣ € … 🐄🐂",  # noqa: RUF001 - wide letters, which some normalizers narrow
    "w1 w2 w3",
)
TOKENS = 20_000  # whose texts are compared; of a larger vocabulary, as many at equal distances


def disagreement(folder: Path) -> dict[str, Any]:
    """Return the first text that transformers cuts into other tokens than the tokenizer's own file, and both cuts.

    Args:
        folder: A model's folder, without weights.

    Returns:
        ``kind``, the class that transformers loads, its ``last`` token and the id of that, ``highest``, and ``text``, ``read``
        and ``own``; without the last three if nothing differs, or no file states what is right. If it does not load, only ``error``; if a package is missing, only ``missing``.
    """
    try:
        return _compared(load_tokenizer(folder), _own(folder))
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    except Exception as error:  # noqa: BLE001 - each class of tokenizers has errors of its own, when it is loaded or used
        return {"error": " ".join(str(error).split())[:200] or type(error).__name__}


def _compared(loaded: Any, own: tuple[Callable[[str], list[int]], Iterator[str]] | None) -> dict[str, Any]:
    token, number = max(loaded.get_vocab().items(), key=lambda item: item[1])
    found: dict[str, Any] = {"kind": type(loaded).__name__, "last": token, "highest": number}
    if own is None:
        return found
    cut, tokens = own
    texts = [*TEXTS, *tokens]
    read = loaded(texts, add_special_tokens=False, verbose=False)["input_ids"]
    for text, ids in zip(texts, read, strict=True):
        if ids != (right := cut(text)):
            name = loaded.convert_ids_to_tokens
            return {**found, "text": text, "read": name(ids), "own": name(right)}
    return found


def _own(folder: Path) -> tuple[Callable[[str], list[int]], Iterator[str]] | None:
    """Return how the tokenizer's own file cuts a text, and texts of its tokens; None if transformers alone can read it."""
    if (folder / TOKENIZER).exists():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder()
        ids = sorted(tokenizer.get_vocab(with_added_tokens=False).values())
        texts = _texts([number for number in ids if number not in added], tokenizer.decode)
        return (
            lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
            _with_added(texts, (token.content for token in added.values())),
        )
    content = (folder / SENTENCEPIECE).read_bytes() if (folder / SENTENCEPIECE).exists() else b""
    if not content or TIKTOKEN.match(content):
        return None
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_proto=content)
    normal = [
        number
        for number in range(len(pieces))
        if not (pieces.is_control(number) or pieces.is_unknown(number) or pieces.is_byte(number))
    ]
    return pieces.encode, _texts(normal, pieces.decode)


def _texts(ids: list[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    """Yield the texts of tokens, as far as they are whole characters."""
    for number in ids[:: 1 + len(ids) // TOKENS]:
        if (text := decode([number]).strip()) and "\ufffd" not in text:
            yield text


def _with_added(texts: Iterator[str], added: Iterator[str]) -> Iterator[str]:
    yield from texts
    yield from added


def main() -> None:
    """Answer the question on standard input."""
    with redirect_stdout(sys.stderr), suppress(ModuleNotFoundError):  # it is named in the answer
        import transformers  # noqa: F401
    answer(reply)


def reply(folders: list[str]) -> dict[str, Any]:
    """Return what is ``found`` in each of several folders."""
    return {"found": [disagreement(Path(folder)) for folder in folders]}


if __name__ == "__main__":
    main()
