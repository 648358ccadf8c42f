"""Texts: JSON Lines files whose objects contain a text in one field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import jsonio
from herdbook.errors import LockError
from herdbook.limits import DOCUMENT, TEXTS_BYTES, OverLimitError, check_size

if TYPE_CHECKING:
    from pathlib import Path


def read_texts(path: Path, field: str, what: str) -> list[str]:
    """Return the texts of a JSON Lines file.

    Raises:
        LockError: If it is too large, or a line is not a JSON object, or has no text in ``field``.
    """
    texts = []
    try:
        check_size(path.stat().st_size, TEXTS_BYTES)
    except OverLimitError as error:
        raise LockError(f"{what}: {path}: refused: it {error}") from error
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            text = jsonio.load(line, DOCUMENT)[field]
        except OverLimitError as error:
            raise LockError(f"{what}: {path}, line {number}: refused: it {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise LockError(
                f"{what}: {path}, line {number}: expected a JSON object with {field!r}"
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise LockError(f"{what}: {path}, line {number}: {field!r} contains no text")
        texts.append(text)
    if not texts:
        raise LockError(f"{what}: {path}: contains no text")
    return texts
