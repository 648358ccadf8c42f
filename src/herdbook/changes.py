"""Differences between two JSON values, as sentences for people."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

DIGEST = re.compile(r"[0-9a-f]{40,64}")
SHOWN_DIGITS = 12
SHOWN_CHARACTERS = 80


def changed_parameters(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield a sentence for each innermost parameter that differs.

    Args:
        before: The earlier parameters, as JSON.
        now: The parameters now.
        name: The name of the value that is compared; empty at the top.
    """
    for path, change in changes(before, now, name):
        yield f"parameter `{path}` {change}"


def changes(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of each innermost parameter that differs, and in words how. The arguments are ``changed_parameters``'."""
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict) and (not name or before.keys() == now.keys()):
        for key in sorted(before.keys() | now.keys()):
            inner = f"{name}.{key}" if name else str(key)
            if key not in now:
                yield inner, f"was {_shortened(before[key])}, is now absent"
            elif key not in before:
                yield inner, f"is new: {_shortened(now[key])}"
            else:
                yield from changes(before[key], now[key], inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from changes(old, new, f"{name}.{index}")  # as refusals count, from 0
    else:
        yield name, f"was {_shortened(before)}, is {_shortened(now)}"


def _shortened(value: Any) -> str:
    """Return a value as JSON, with shortened digests, and itself shortened to a readable length."""
    text = json.dumps(value, ensure_ascii=False)
    text = DIGEST.sub(lambda match: f"{match[0][:SHOWN_DIGITS]}…", text)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
