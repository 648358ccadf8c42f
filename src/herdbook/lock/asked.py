"""A recipe's entries as a lock stores them, so that it is seen when a recipe asks for something else; and what they name."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from herdbook.recipe import Adapter, Folder, Hub, Pypi
from herdbook.sources.purl import HubCommit

if TYPE_CHECKING:
    from pydantic import JsonValue

    from herdbook.recipe import HubFile, Section


def request(model: Section) -> dict[str, JsonValue]:
    """Return a recipe's entry of a source or adapter, as the lock stores it."""
    entry = model.model_dump(mode="json", exclude_defaults=True)
    if isinstance(model, Adapter):
        del entry["on"]  # the lock is about the adapter's own files
    return entry


def asked_of(entry: HubFile) -> dict[str, JsonValue]:
    """Return a recipe's entry of a single file, as the lock stores it."""
    return {"hub": entry.hub, "file": entry.file}


def uri_of(model: Hub | Folder | Pypi, revision: str) -> str:
    """Return where a source comes from, at the revision that its name resolved to: a package URL if it has one."""
    match model:
        case Hub():
            return str(HubCommit(model.hub.partition("@")[0], revision))
        case Folder():
            return f"folder:{PurePath(model.folder).name}"
        case Pypi():
            package, _, version = model.pypi.partition("==")
            return f"pkg:pypi/{package.lower().replace('_', '-')}@{version}"
