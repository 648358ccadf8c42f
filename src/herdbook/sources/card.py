"""The facts in the card of a source, ``README.md``: its license and its parents.

The card is read as it is in the pinned commit. The Hub's description of a repository states the same today, but may state
something else tomorrow without a commit, and is not covered by a digest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook import yamlio
from herdbook.errors import SourceError
from herdbook.layout import CARD

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

# As the Hub's client finds it: a card may begin with empty lines.
_FRONT = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]+---(?:\r\n|\n|$)", re.DOTALL)
_ADVICE = "It contains the license. Have its owner repair it, or name a copy of the model in a folder, with the license in the recipe"


@dataclass(frozen=True)
class Card:
    """The facts on a source in its card.

    Args:
        license: The license; None if it names none.
        base_models: The parents.
    """

    license: str | None = None
    base_models: tuple[str, ...] = ()


def read_card(names: Collection[str], read: Callable[[str], bytes], what: str) -> Card:
    """Return the facts in the card among a source's files; empty without a card or without front matter.

    Args:
        names: The names of the files.
        read: Returns the content of one of them.
        what: The source, for error messages.

    Raises:
        SourceError: If its front matter is no mapping in YAML, so that its license is not known.
    """
    if CARD not in names:
        return Card()
    try:
        entries = front_matter(read(CARD))
    except yamlio.YamlError as error:
        raise SourceError(f"{what}: {CARD}: its front matter{error}. {_ADVICE}") from error
    return Card(
        license=", ".join(_licenses(entries)) or None,
        base_models=tuple(_strings(entries.get("base_model"))),
    )


def front_matter(content: bytes) -> dict[str, Any]:
    """Return the front matter of a card; empty if it has none.

    Raises:
        YamlError: If it is no mapping in YAML; the message is to follow a word for it.
    """
    match = _FRONT.match(content.decode("utf-8-sig", errors="replace"))
    try:
        entries = yamlio.load(match[1], yamlio.PyYamlLoader) if match else None
    except yamlio.YamlError as error:
        raise yamlio.YamlError(f": {error}") from error
    if not isinstance(entries, dict | None):
        raise yamlio.YamlError(" is not a mapping")
    return entries or {}


def _licenses(entries: dict[str, Any]) -> list[str]:
    """Return the licenses; in place of the Hub's word for one that it does not list, its name."""
    named = _strings(entries.get("license_name"))
    return [named[0] if one == "other" and named else one for one in _strings(entries.get("license"))]


def _strings(value: Any) -> list[str]:
    """Return an entry, one string or several, as a list; values that are not strings are left out."""
    return [
        item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str) and item
    ]
