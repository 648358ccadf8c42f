"""How long a tokenizer can make a text before it cuts it into tokens: a few lines of a normalizer can make gigabytes of it."""

from __future__ import annotations

import base64
from typing import Any

from herdbook import limits

# How many times as many bytes a text can have after each normal form of Unicode, and after changes of single characters.
TIMES = {"NFC": 3, "NFD": 4, "NFKC": 11, "NFKD": 11, "Lowercase": 2, "BertNormalizer": 4, "ByteLevel": 2}


def check_growth(normalizer: Any, size_bytes: int = limits.TEXT_BYTES) -> None:
    """Check what a normalizer can make of a text.

    Args:
        normalizer: The part ``normalizer`` of ``tokenizer.json``. What does not follow the format counts as nothing, since the
            library refuses it.
        size_bytes: The length of the text in UTF-8; by default that of a long prompt.

    Raises:
        OverLimitError: If it can be longer than ``limits.NORMALIZED_BYTES``.
    """
    if (size := longest(normalizer, size_bytes)) > max(limits.NORMALIZED_BYTES, size_bytes):
        raise limits.OverLimitError(
            f"has a normalizer that can make {size:,} bytes or more of a text of {size_bytes:,}, over the limit of "
            f"{limits.NORMALIZED_BYTES:,}"
        )


def longest(normalizer: Any, size: int) -> int:
    """Return at least the bytes that a normalizer can make of a text of ``size`` bytes; stops above the limit."""
    if not isinstance(normalizer, dict):
        return size
    match normalizer.get("type"):
        case "Sequence":
            for inner in normalizer.get("normalizers") or []:
                size = longest(inner, size)
                if size > limits.NORMALIZED_BYTES:
                    break
            return size
        case "Replace":
            # a fixed text is replaced where it is, a regular expression also where it matches nothing: around each character
            pattern, content = normalizer.get("pattern"), _size(normalizer.get("content"))
            fixed = _size(pattern.get("String")) if isinstance(pattern, dict) else 0
            return max(size, -(-size * content // fixed)) if fixed else size + (size + 1) * content
        case "Prepend":
            return size + _size(normalizer.get("prepend"))
        case "Precompiled":
            return size * _longest_text(normalizer.get("precompiled_charsmap"))
        case kind:
            return size * TIMES.get(str(kind), 1)


def _size(text: Any) -> int:
    return len(text.encode(errors="replace")) if isinstance(text, str) else 0


def _longest_text(charsmap: Any) -> int:
    """Return the length of the longest text in a map of SentencePiece: length and bytes of a trie, then texts that end in 0."""
    data = base64.b64decode(charsmap) if isinstance(charsmap, str) else b""
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    return max(1, *(len(text) for text in texts.split(b"\0")))
