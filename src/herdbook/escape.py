"""Untrusted text, escaped for Markdown and SVG.

Prompts, names, licenses, cells of a CSV and claims come from outside. A template prints only numbers and the type
`Markdown`, which the functions here return; ``only_escaped`` refuses everything else, so that a forgotten filter is an
error and not a vulnerability.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.humanize import joined
from herdbook.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable


# Characters that have a meaning anywhere in Markdown. Those that HTML or a table would interpret before Markdown's backslash
# become entities.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_SPECIAL = re.compile(r"[\\`*_\[\]#~$@&<>|]|:(?=//)|(?<=[wW]{3})\.")
_LEADING_MARK = re.compile(r"^[-+=]")
_LEADING_NUMBER = re.compile(r"^(\d{1,9})([.)])")
_FILE_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*")
_SAFE_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9._~:/?#@!$&'*+,;=%-]*")


# The filters of a card's templates, by name; those that print numbers are the card's own.
FILTERS = frozenset((
    "md", "code", "fenced", "quoted", "link", "titled", "file_link", "codes", "titles", "commas", "amount", "size", "fixed", "signed",
    "percent", "places", "score", "anchor",
))  # fmt: skip


class Markdown(str):
    """Text that was written or escaped by Herdbook as Markdown and may be printed unchanged."""

    __slots__ = ()


def clean(text: object) -> str:
    """Return text after the filter of ``herdbook.visible``: with line feeds alone, without invisible characters and tokens.

    Raises:
        TypeError: If it is not text.
        jinja2.UndefinedError: If it is a template's undefined variable.
    """
    if isinstance(text, str):
        return visible(text)
    if _is_undefined(text):
        return str(text)  # a strict one raises here
    raise TypeError(f"expected text, found {type(text).__name__}")


def _is_undefined(value: object) -> bool:
    """Return whether a value is a template's undefined variable."""
    from jinja2 import Undefined  # takes a fifth of the time in which a verification begins

    return isinstance(value, Undefined)


def one_line(text: object) -> str:
    """Return cleaned text on one line, with one space for each run of white space."""
    return " ".join(clean(text).split())


def md(text: object) -> Markdown:
    """Escape text so that Markdown shows it unchanged anywhere: in a paragraph, at the start of a line, in a table."""
    escaped = _SPECIAL.sub(lambda match: _ENTITIES.get(match[0], "\\" + match[0]), one_line(text))
    escaped = _LEADING_MARK.sub(lambda match: "\\" + match[0], escaped)
    return Markdown(_LEADING_NUMBER.sub(r"\1\\\2", escaped))


def code(text: object) -> Markdown:
    """Return text as a code span that its content cannot close, also valid in a table.

    A pipe would end a table's cell even inside a code span, and renderers disagree on how to escape it; text with a pipe is
    escaped instead.
    """
    flat = one_line(text)
    if "|" in flat or not flat:
        return md(flat)
    ticks = "`" * (_longest_run(flat) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return Markdown(f"{ticks}{pad}{flat}{pad}{ticks}")


def codes(names: Iterable[object]) -> Markdown:
    """Join names, each as a code span."""
    return Markdown(joined(code(name) for name in names))


def fenced(text: object, language: str = "") -> Markdown:
    """Return text as a fenced block that its content cannot close."""
    body = clean(text).strip("\n")
    fence = "`" * max(3, _longest_run(body) + 1)
    return Markdown(f"{fence}{language}\n{body}\n{fence}")


def quoted(text: object) -> Markdown:
    """Return text as a block quotation, line by line."""
    lines = [line for line in clean(text).split("\n") if line.strip()]
    return Markdown(
        "\n".join(
            f"> {md(line)}{'  ' if index < len(lines) else ''}" for index, line in enumerate(lines, start=1)
        )
    )


def link(text: object) -> Markdown:
    """Return a web address as a link that shows where it leads; anything else as escaped text."""
    flat = one_line(text)
    return Markdown(f"<{flat}>") if _SAFE_URL.fullmatch(flat) else md(flat)


def titled(address: object, title: object) -> Markdown:
    """Return a web address as a link under a title; of anything else, the title as escaped text."""
    flat = one_line(address)
    return Markdown(f"[{md(title)}](<{flat}>)") if _SAFE_URL.fullmatch(flat) else md(title)


def file_link(name: object, title: object = None) -> Markdown:
    """Return the name of a file beside the card, or a shorter title, as a link to it; a pattern of names as code."""
    flat = one_line(name)
    shown = code(title or flat)
    return Markdown(f"[{shown}]({flat})") if _FILE_NAME.fullmatch(flat) else shown


def xml(text: object) -> str:
    """Escape text for XML, in content and in attributes."""
    flat = one_line(text)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        flat = flat.replace(character, entity)
    return flat


def only_escaped(value: object) -> object:
    """Return a value that a template may print unchanged (for Jinja's ``finalize``).

    Raises:
        StepError: If it is text that no filter has escaped.
    """
    if _is_undefined(value):
        return str(value)  # a strict one raises here
    if isinstance(value, Markdown) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise StepError(
        f"card: a template prints {type(value).__name__} {str(value)[:60]!r} without a filter that escapes it"
    )


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
