"""Losses by quantization, measured again: equal but for rounding, which other processors do otherwise."""

from __future__ import annotations

import math
from typing import Any

# Of float32 sums of a few thousand numbers, whatever their order: relative, and in nats.
RELATIVE, ABSOLUTE = 1e-3, 1e-5


def disagreement(ours: Any, theirs: Any, where: str = "") -> str | None:
    """Return the first place at which two measurements of a loss differ by more than rounding; None if there is none."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        found = (disagreement(ours[key], theirs[key], f"{where}.{key}".lstrip(".")) for key in ours)
        return next((place for place in found if place), None)
    if isinstance(ours, float) and isinstance(theirs, float):
        near = math.isclose(ours, theirs, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    else:
        near = type(ours) is type(theirs) and ours == theirs
    return None if near else (where or "the whole file")
