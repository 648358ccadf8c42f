"""The predicate of a claim about a release's lineage: how many of its bytes equal which source's, or were computed.

Specified in docs/spec/lineage.md, with a JSON Schema, test vectors, and a checker that shares no code with this package.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from herdbook.layout import LINEAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.jsonio import JsonObject
    from herdbook.provenance.lineage import LineageSlice

LINEAGE_TYPE = "urn:herdbook:predicate:tensor-lineage:v1"


def predicate(slices: Iterable[LineageSlice], sha256: str) -> JsonObject:
    """Return the predicate.

    Args:
        slices: The lineage.
        sha256: Digest of its file.
    """
    equal: Counter[str] = Counter()
    computed: Counter[str] = Counter()
    for slice_ in slices:
        size = slice_.end - slice_.begin
        if slice_.equals:
            equal[slice_.equals.uri] += size
        elif slice_.made:
            computed[slice_.made.operation] += size
    return {
        "lineage": {"name": LINEAGE, "digest": {"sha256": sha256}, "mediaType": "application/jsonl"},
        "bytes": equal.total() + computed.total(),
        "equal": [{"uri": uri, "bytes": size} for uri, size in sorted(equal.items())],
        "computed": [{"operation": name, "bytes": size} for name, size in sorted(computed.items())],
    }
