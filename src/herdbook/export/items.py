"""The files that steps read and made: those of sources and beside the recipe, and results of the release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from herdbook.layout import input_file
from herdbook.plan.material import carried_inputs, inputs
from herdbook.provenance.slsa import download_location

if TYPE_CHECKING:
    from herdbook.lock import LockedFile
    from herdbook.plan import Plan
    from herdbook.plan.material import Material


@dataclass(frozen=True)
class Item:
    """A file that a step read or made.

    Args:
        name: Its name.
        released: Its name in the release, if it is part of it; the release then has the other fields.
        uri: Its URI, if it is an upstream file.
        sha256: SHA-256 of its content.
        git_blob: Git's id of its content, where no SHA-256 is known.
        size_bytes: Its size.
        in_part: Whether only ranges of it were read, so that its digest was not compared.
    """

    name: str
    released: str | None = None
    uri: str | None = None
    sha256: str | None = None
    git_blob: str | None = None
    size_bytes: int = 0
    in_part: bool = False


def material_items(material: Material) -> dict[str, Item]:
    """Return the files of an upstream model or adapter, by their names in it."""
    return {
        file.name: Item(
            file.name,
            uri=download_location(material, file) or f"{material.uri}#{quote(file.name)}",
            sha256=file.sha256,
            git_blob=file.git_blob,
            size_bytes=file.size_bytes,
            in_part=material.in_part and file.name in material.weights,
        )
        for file in material.files
    }


def input_items(plan: Plan) -> dict[str, Item]:
    """Return the files that the recipe names beside itself, by their names in the recipe."""
    carried = carried_inputs(plan)
    return {
        entry.file.name: _upstream(entry.file, entry.uri) if entry.uri else _input(entry.file, set(carried))
        for entry in inputs(plan)
    }


def _upstream(file: LockedFile, uri: str) -> Item:
    """Return a file of a data set on the Hub."""
    return Item(file.name, uri=uri, sha256=file.sha256, git_blob=file.git_blob, size_bytes=file.size_bytes)


def result_item(name: str) -> Item:
    """Return a result that is part of the release, by its name there."""
    return Item(name.rpartition("/")[2], released=name)


def _input(file: LockedFile, carried: set[str]) -> Item:
    name = input_file(file.name, str(file.sha256))
    return Item(
        file.name,
        released=name if name in carried else None,
        sha256=file.sha256,
        git_blob=file.git_blob,
        size_bytes=file.size_bytes,
    )
