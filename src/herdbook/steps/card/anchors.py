"""Links within a card. A recipe chooses the card's sections, so what a link leads to may not be there; it is then plain text."""

from __future__ import annotations

import re

from herdbook.escape import Markdown, md

_MARK = "\0"  # around a link until the whole card is rendered; no text that is printed has it
_LINK = re.compile(f"{_MARK}([^{_MARK}]*){_MARK}([^{_MARK}]*){_MARK}")
_FENCED = re.compile(r"^(`{3,})[^`\n]*\n.*?^\1`*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z-]*")


def anchor(text: object, heading: str) -> Markdown:
    """Return text that ``resolved`` makes a link to a heading, if the card has it.

    Args:
        text: The text; it is escaped.
        heading: The heading's anchor, such as ``is-it-good``.

    Raises:
        ValueError: If it is no anchor.
    """
    if not _NAME.fullmatch(heading):
        raise ValueError(f"{heading!r} is no anchor of a heading")
    return Markdown(f"{_MARK}{md(text)}{_MARK}{heading}{_MARK}")


def resolved(card: str) -> str:
    """Return a card whose links within it lead to headings that it has; others are their text alone."""
    there = headings(card)
    return _LINK.sub(
        lambda match: f"[{match[1]}](#{match[2]})" if match[2] in there else match[1],
        card,
    )


def headings(card: str) -> set[str]:
    """Return the anchors that the Hub gives to a card's headings."""
    return {
        re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        for title in _HEADING.findall(_FENCED.sub("", card))
    }
