"""Option types for sizes and ages: ``500MB``, ``30d``."""

from __future__ import annotations

import re

import click

from herdbook.humanize import parse_size

HOURS = {"h": 1, "d": 24, "w": 168}


class Size(click.ParamType[int | None]):
    """A number of bytes.

    Args:
        everything: A word that means no limit; its value is None.
    """

    name = "size"

    def __init__(self, everything: str = "") -> None:
        self.everything = everything

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Return the number of bytes; None for no limit."""
        if isinstance(value, int):
            return value
        if self.everything and value == self.everything:
            return None
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(f"{error}, or {self.everything}" if self.everything else str(error), param, ctx)


class Age(click.ParamType[float]):
    """A time in seconds, written in hours, days or weeks."""

    name = "age"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", value, re.ASCII)
        if match is None:
            self.fail(f"{value!r}: expected an age such as 12h, 30d or 8w", param, ctx)
        return float(match[1]) * HOURS[match[2]] * 3600
