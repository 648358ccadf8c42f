"""Text for people: sizes, durations, counts, ranges, ordinals, and suggestions for misspelt names.

Sizes are decimal (1 kB is 1000 bytes), as on the Hub and on disks.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal

UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[kKMGT]B|B|)", re.ASCII)


def integer(number: int) -> str:
    """Return an integer with commas: ``7,241,732,096``."""
    return f"{number:,}"


def amount(number: int) -> str:
    """Return a large integer in words: ``7.24 billion``."""
    return integer(number) if number < 10**6 else _scaled(number, {"million": 10**6, "billion": 10**9})


def size(size_bytes: int) -> str:
    """Return a number of bytes in the largest decimal unit that leaves a whole digit: ``4.37 GB``, ``999 bytes``."""
    return plural(size_bytes, "byte") if size_bytes < 1000 else _scaled(size_bytes, UNITS)


def _scaled(number: int, units: Mapping[str, int]) -> str:
    """Return a number with two decimals in the first unit that needs three whole digits at most, else in the last one."""
    text = ""
    for unit, factor in units.items():
        scaled = f"{number / factor:.2f}"
        text = f"{scaled} {unit}"
        # not `number / factor < 1000`: 999,999 bytes are 1.00 MB, not 1000.00 kB
        if len(scaled) <= len("999.99"):
            break
    return text


def parse_size(text: str) -> int:
    """Parse a size in bytes: ``500MB``, ``1.5 GB``, ``2000``; ``KB`` is read as ``kB``.

    Raises:
        ValueError: If it is not a size, or not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 500MB (kB, MB, GB, TB: decimal)")
    factors: dict[str, int] = {"": 1, "B": 1, "KB": 10**3, **UNITS}
    whole, _, decimals = match["number"].partition(".")
    size_bytes, rest = divmod(int(whole + decimals) * factors[match["unit"]], int(10 ** len(decimals)))
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size_bytes


def duration(seconds: float) -> str:
    """Return a time in the units that fit it: ``4.2 s``, ``3 min 05 s``, ``2 h 08 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: ``1 step``, ``2 steps``; ``many`` is the plural if it does not end in s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def fixed(number: Decimal | float, digits: int = 4) -> str:
    """Return a number with a fixed count of decimals; zero has no minus."""
    return f"{number:z.{digits}f}"


def signed(number: Decimal | float, digits: int = 4) -> str:
    """Return a number with its sign and a fixed count of decimals."""
    return f"{number:+z.{digits}f}"


def percent(share: Decimal | float, digits: int = 1) -> str:
    """Return a share as a percentage: ``12.5 %``."""
    return f"{share * 100:z.{digits}f} %"


def ordinal(number: int) -> str:
    """Return an English ordinal: ``3rd``, ``11th``."""
    suffix = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{suffix}"


def joined(words: Iterable[str]) -> str:
    """Join words: ``a``, ``a and b``, ``a, b and c``."""
    listed = list(words)
    return f"{', '.join(listed[:-1])} and {listed[-1]}" if len(listed) > 1 else "".join(listed)


def ranges(numbers: Iterable[int]) -> str:
    """Return sorted, unique integers as ranges: ``0-3, 7``."""
    bounds: list[list[int]] = []
    for number in sorted(set(numbers)):
        if bounds and number == bounds[-1][1] + 1:
            bounds[-1][1] = number
        else:
            bounds.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in bounds)


def clipped(text: str, width: int) -> str:
    """Return text of at most so many characters, with an ellipsis in its middle: names often differ in their ends."""
    if len(text) <= width:
        return text
    kept = max(0, width - 1)
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def closest(name: str, names: Iterable[object], *, least: float = 0.6) -> str | None:
    """Return the most similar name, whatever its case; None if no name is similar.

    Args:
        name: The name that was given.
        names: The known names.
        least: From which similarity on, 0 to 1, a name is similar.
    """
    known = {str(candidate).casefold(): str(candidate) for candidate in names}
    matches = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=least)
    return known[matches[0]] if matches else None


def did_you_mean(name: str, names: Iterable[object]) -> str:
    """Return a suggestion for the end of a message: ``; did you mean 'x'?``, or nothing if no name is similar."""
    suggestion = closest(name, names)
    return f"; did you mean {suggestion!r}?" if suggestion else ""
