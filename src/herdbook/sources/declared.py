"""What the card of a source declares about its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.layout import CARD
from herdbook.sources.card import front_matter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def declared_data(names: Collection[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """Return the data sets in the front matter of the card among a source's files; none without a card.

    Args:
        names: The names of the files.
        read: Returns the content of one of them.

    Raises:
        YamlError: If the front matter is no mapping in YAML.
    """
    found = front_matter(read(CARD)).get("datasets") if CARD in names else None
    return tuple(
        item for item in (found if isinstance(found, list) else [found]) if isinstance(item, str) and item
    )
