"""Numbers as text: fixed decimals, decimal units, English ordinals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.escape import Markdown, code

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal


def count(number: int) -> Markdown:
    """Return an integer with commas: ``7,241,732,096``."""
    return Markdown(f"{number:,}")


def amount(number: int) -> Markdown:
    """Return a large integer in words: ``7.24 billion``."""
    for unit, word in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return Markdown(f"{number / unit:.2f} {word}")
    return count(number)


def size(size_bytes: int) -> Markdown:
    """Return a number of bytes in decimal units: ``4.37 GB``."""
    for unit, word in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit:
            return Markdown(f"{size_bytes / unit:.2f} {word}")
    return Markdown(f"{size_bytes} bytes")


def fixed(number: Decimal | float, digits: int = 4) -> Markdown:
    """Return a number with a fixed count of decimals, and no minus before a zero."""
    return Markdown(f"{number:z.{digits}f}")


def signed(number: Decimal | float, digits: int = 4) -> Markdown:
    """Return a number with its sign and a fixed count of decimals."""
    return Markdown(f"{number:+z.{digits}f}")


def percent(share: Decimal | float, digits: int = 1) -> Markdown:
    """Return a share as a percentage: ``12.5 %``."""
    return Markdown(f"{share * 100:z.{digits}f} %")


def ordinal(number: int) -> Markdown:
    """Return an English ordinal: ``3rd``, ``11th``."""
    suffix = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return Markdown(f"{number:,}{suffix}")


def joined(words: Iterable[str]) -> Markdown:
    """Join escaped words: ``a``, ``a and b``, ``a, b and c``."""
    found = list(words)
    if len(found) < 2:
        return Markdown("".join(found))
    return Markdown(f"{', '.join(found[:-1])} and {found[-1]}")


def codes(names: Iterable[str]) -> Markdown:
    """Join names, each a code span."""
    return joined(code(name) for name in names)


def runs(numbers: Iterable[int]) -> str:
    """Return integers as runs: ``0-3, 7``."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
