"""The evidence in the records (ranks, energy kept, change of a matrix, spectrum), from which the card is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Numbers are recorded with six digits, and those of another processor may differ in the last of them.
RELATIVE = 1e-4
NEGLIGIBLE = 1e-6  # of a singular value, beside the largest: the smallest ones are noise of the processor
# Recorded with fewer digits.
FEWER_DIGITS = {"tolerance": 0.11, "misfit": 0.011}
# Of the bytes themselves, which are compared; a digest of float64 values, which other processors compute otherwise; and a word
# of the builder, which nothing here relies on.
NOT_EVIDENCE = frozenset({"sha256", "from", "slices", "dtype", "shape", "device"})


def differing(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Yield where a release's record of a tensor differs from the one that was written here: the place, ours, theirs."""
    for name in sorted((ours.keys() | theirs.keys()) - NOT_EVIDENCE):
        place = f"{where}.{name}" if where else name
        if name not in ours or name not in theirs:
            yield place, str(ours.get(name, "nothing")), str(theirs.get(name, "nothing"))
        else:
            yield from _differing(place, name, ours[name], theirs[name])


def _differing(
    place: str, name: str, ours: Any, theirs: Any, negligible: float = 0.0
) -> Iterator[tuple[str, str, str]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        yield from differing(ours, theirs, place)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        largest = max((abs(value) for value in ours if isinstance(value, float)), default=0.0)
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _differing(f"{place}[{index}]", name, *pair, NEGLIGIBLE * largest)
    elif isinstance(ours, float) and isinstance(theirs, float):
        if not math.isclose(
            ours, theirs, rel_tol=FEWER_DIGITS.get(name, RELATIVE), abs_tol=max(negligible, 1e-12)
        ):
            yield place, str(ours), str(theirs)
    elif ours != theirs:
        yield place, str(ours), str(theirs)
