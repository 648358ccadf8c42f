"""Texts: JSON Lines files, in which a field of each object holds one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from herdbook.errors import LockError

if TYPE_CHECKING:
    from pathlib import Path


def read_texts(path: Path, field: str, what: str) -> list[str]:
    """Return the texts of a JSON Lines file.

    Raises:
        LockError: If a line is no JSON object, or has no text under ``field``.
    """
    texts = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[field]
        except (ValueError, KeyError, TypeError) as error:
            raise LockError(
                f"{what}: {path}, line {number}: a JSON object with {field!r} is needed"
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise LockError(f"{what}: {path}, line {number}: {field!r} holds no text")
        texts.append(text)
    if not texts:
        raise LockError(f"{what}: {path}: holds no text")
    return texts
