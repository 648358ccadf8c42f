"""Where two JSON values differ."""

from __future__ import annotations

from typing import Any


def difference(expected: Any, found: Any, where: str = "") -> tuple[str, str, str]:
    """Return the path at which two JSON values first differ, and both values at it, shortened."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key) or (key in expected) != (key in found):
                return difference(expected.get(key), found.get(key), f"{where}.{key}" if where else key)
    if isinstance(expected, list) and isinstance(found, list):
        for index in range(max(len(expected), len(found))):
            left, right = (side[index] if index < len(side) else None for side in (expected, found))
            if left != right:
                return difference(left, right, f"{where}[{index}]")
    return where or "the top level", str(expected)[:200], str(found)[:200]
