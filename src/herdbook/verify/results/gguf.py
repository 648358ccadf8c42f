"""What the records of GGUF files and of importance matrices must contain."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from herdbook.layout import IMATRIX, RECORDS
from herdbook.plan.quantize import QUANTIZE_CODE
from herdbook.release.reader import damaged
from herdbook.verify.gguf.recorded import file_of, listed_file, recorded_types
from herdbook.verify.results.expected import Expected

if TYPE_CHECKING:
    from herdbook.plan import Imatrix
    from herdbook.plan.quantize import Quantized
    from herdbook.release.reader import Release


def imatrix(release: Release, item: Imatrix) -> Expected:
    """Return what the record of an importance matrix must contain."""
    name = f"{RECORDS}/{item.id}{IMATRIX}.json"
    found = release.subject.json(name)
    stated = {
        **item.about,
        "file": listed_file(release, item.file),
        "tensors": sorted(item.tensors),
    }
    if not item.given:
        stated["chunks"] = item.chunks
    with damaged(name):
        free = frozenset(found.keys() - stated.keys())
    return Expected(name, item.code.of, stated, free)


def quantized(release: Release, planned: Quantized) -> Expected:
    """Return what the record of a quantized file must contain."""
    item = recorded_types(release, planned)
    name = f"{RECORDS}/{item.id}.gguf.json"
    found = release.subject.json(name)
    stated = {**item.about, "file": file_of(release, item)}
    widths = bits_and_types(item)
    stated |= {"parameters": sum(widths["types"].values()), **widths}
    with damaged(name):
        free = frozenset(found.keys() - stated.keys())
        listed = [[entry["name"], entry["type"]] for entry in found["tensors"]]
    expected = [[tensor.name, tensor.type] for tensor in item.tensors]
    return Expected(name, QUANTIZE_CODE, stated, free, [(expected, listed)])


def bits_and_types(item: Quantized) -> dict[str, Any]:
    """Return the bits per weight of a quantized file, and how many weights have which type."""
    types: Counter[str] = Counter()
    for tensor in item.tensors:
        types[tensor.type] += math.prod(tensor.shape)
    return {
        "bits_per_weight": round(8 * item.size_bytes / types.total(), 3),
        "types": dict(sorted(types.items())),
    }
