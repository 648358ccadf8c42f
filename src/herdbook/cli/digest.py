"""The option type for digests of releases."""

from __future__ import annotations

import re

import click


class Digest(click.ParamType[str]):
    """A SHA-256 in hexadecimal digits, with or without ``sha256:`` before it."""

    name = "digest"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the 64 digits, in lower case."""
        digits = value.strip().lower().removeprefix("sha256:")
        if not re.fullmatch("[0-9a-f]{64}", digits):
            self.fail(f"{value!r}: expected a SHA-256, 64 hexadecimal digits", param, ctx)
        return digits
