"""What the plan does not know of a quantized file, as the release records it: types that were chosen when it was made, and what its parts join to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import RECORDS
from herdbook.plan.quantize import with_types
from herdbook.release.reader import damaged

if TYPE_CHECKING:
    from herdbook.plan import Quantized
    from herdbook.release.reader import Release


def recorded_types(release: Release, item: Quantized) -> Quantized:
    """Return a file with its recorded types, if the plan does not contain them; whether they follow from errors is another level's.

    Raises:
        VerificationError: If the record is damaged, or over the budget.
    """
    if not item.budget:
        return item
    name = f"{RECORDS}/{item.id}.gguf.json"
    found: Any = release.subject.json(name)
    with damaged(name):
        return with_types(item, {str(entry["name"]): str(entry["type"]) for entry in found["tensors"]})


def file_of(release: Release, item: Quantized) -> dict[str, Any]:
    """Return size and digest of a file: as the release has it, or, of one in parts, as its record has it.

    That the parts join to it is shown by the level `recomputed`.

    Raises:
        MissingError: If the file is listed, and missing.
        VerificationError: If the record is damaged.
    """
    if item.is_split:
        name = f"{RECORDS}/{item.id}.gguf.json"
        found: Any = release.subject.json(name)
        with damaged(name):
            return {key: found["file"][key] for key in ("sha256", "size_bytes")}
    return listed_file(release, item.file)


def listed_file(release: Release, name: str) -> dict[str, Any]:
    """Return size and digest of a file; of one that is not listed, nothing. Raises MissingError if it is, and is missing."""
    size = release.subject.entry(name).size_bytes if name in release.sums else 0
    return {"sha256": release.sums.get(name), "size_bytes": size}
