"""The types of a file that were chosen when it was made, as the release records them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import RECORDS
from herdbook.plan.quantize import with_types
from herdbook.release.reader import damaged

if TYPE_CHECKING:
    from herdbook.plan import Quantized
    from herdbook.release.reader import Release


def recorded_types(release: Release, item: Quantized) -> Quantized:
    """Return a file with its recorded types, if the plan does not know them; whether they follow from errors is another level's.

    Raises:
        VerificationError: If the record is damaged, or over the budget.
    """
    if not item.budget:
        return item
    name = f"{RECORDS}/{item.id}.gguf.json"
    found: Any = release.subject.json(name)
    with damaged(name):
        return with_types(item, {str(entry["name"]): str(entry["type"]) for entry in found["tensors"]})
