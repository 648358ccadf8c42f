"""Keys: digests that identify a result by its inputs, its parameters and the code that makes it (``herdbook.plan.code``).

Order is part of the meaning (the order of experts and parents), so a key is computed from JSON in which lists keep their
order and only the keys of mappings are sorted. Snakemake gets the key as one string, since it ignores the order and the
names of inputs and params when it decides whether to rerun a job.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

SHORT = 12  # hexadecimal digits of a key in file names: 48 bits, ample within one results folder


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        ValueError: If ``value`` contains NaN or an infinity.
        TypeError: If ``value`` contains something that JSON cannot represent.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()
