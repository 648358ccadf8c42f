"""Numbers and truths, as mergekit reads them: pydantic takes more than YAML's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from herdbook.importing.value import Value

TRUE = {"1", "true", "t", "yes", "y", "on"}
FALSE = {"0", "false", "f", "no", "n", "off"}


def whole_number(value: Value) -> int | None:
    """Return a whole number as pydantic reads it; another value is refused."""
    found = value.content
    if isinstance(found, str) and found.strip().isdecimal() and len(found) < 20:
        return int(found)
    if isinstance(found, bool) or not isinstance(found, int | float) or found != found // 1:
        value.refuse(f"{value.shown} is not a whole number")
        return None
    return int(found)


def number(value: Value) -> float | None:
    """Return a number as pydantic reads it, also from a text such as 1e-5; another value is refused."""
    try:
        found = float(value.content) if isinstance(value.content, int | float | str) else float("nan")
    except (ValueError, OverflowError):
        found = float("nan")
    if found - found != 0:  # not finite
        value.refuse(f"{value.shown} is not a number")
        return None
    exact = value.content
    return exact if isinstance(exact, int) and not isinstance(exact, bool) else found


def boolean(value: Value) -> bool | None:
    """Return true or false as pydantic reads them, also from 1, 0.0 or a word; another value is refused."""
    found = value.content
    if isinstance(found, bool | int | float) and found in {0, 1}:
        return bool(found)
    if isinstance(found, str) and found.lower() in TRUE | FALSE:
        return found.lower() in TRUE
    value.refuse(f"{value.shown} is neither true nor false")
    return None
