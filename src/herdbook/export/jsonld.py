"""Entities of a JSON-LD graph, flat and compact as RO-Crate requires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import SUMS

if TYPE_CHECKING:
    from collections.abc import Iterable

MEDIA_TYPES = {
    ".cdx.json": "application/vnd.cyclonedx+json",
    ".csv": "text/csv",
    ".jinja": "text/plain",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".pub": "application/x-pem-file",
    ".sig": "application/vnd.dev.sigstore.bundle.v0.3+json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
    SUMS: "text/plain",
}
OTHER_MEDIA_TYPE = "application/octet-stream"  # weights, tokenizer.model, wheels

Entity = dict[str, Any]


class Graph:
    """A graph under construction.

    Attributes:
        entities: The entities so far, by ``@id``.
    """

    def __init__(self) -> None:
        self.entities: dict[str, Entity] = {}

    def add(self, identifier: str, kind: str | list[str], /, **properties: Any) -> str:
        """Add an entity, or properties of an existing one; properties that are None are omitted. Return its ``@id``."""
        entity = self.entities.setdefault(identifier, {"@id": identifier, "@type": kind})
        entity |= {name: value for name, value in properties.items() if value is not None}
        return identifier

    def compact(self) -> list[Entity]:
        """Return the entities: lists of one become their item, as RO-Crate recommends, and empty lists are omitted."""
        return [_compact(entity) for entity in self.entities.values()]


def _compact(entity: Entity) -> Entity:
    single = {name: value[0] for name, value in entity.items() if isinstance(value, list) and len(value) == 1}
    return {name: single.get(name, value) for name, value in entity.items() if value != []}


def ref(identifier: str) -> dict[str, str]:
    """Return a reference to an entity."""
    return {"@id": identifier}


def refs(identifiers: Iterable[str]) -> list[dict[str, str]]:
    """Return references to entities."""
    return [ref(identifier) for identifier in identifiers]


def media_type(name: str) -> str:
    """Return the media type of a file, by its name."""
    return next((kind for suffix, kind in MEDIA_TYPES.items() if name.endswith(suffix)), OTHER_MEDIA_TYPE)
