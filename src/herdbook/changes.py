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
        name: What the whole is called; empty at the top.
    """
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict) and (not name or before.keys() == now.keys()):
        for key in sorted(before.keys() | now.keys()):
            inner = f"{name}.{key}" if name else str(key)
            if key not in now:
                yield f"parameter `{inner}` was {_shortened(before[key])}, is absent now"
            elif key not in before:
                yield f"parameter `{inner}` is new: {_shortened(now[key])}"
            else:
                yield from changed_parameters(before[key], now[key], inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (old, new) in enumerate(zip(before, now, strict=True), start=1):
            yield from changed_parameters(old, new, f"{name}[{place}]")
    else:
        yield f"parameter `{name}` was {_shortened(before)}, is {_shortened(now)}"


def _shortened(value: Any) -> str:
    """Return a value as JSON, its digests and itself cut to a length that people read."""
    text = json.dumps(value, ensure_ascii=False)
    text = DIGEST.sub(lambda found: f"{found[0][:SHOWN_DIGITS]}…", text)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
