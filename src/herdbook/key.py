"""Keys: digests that say what a thing is, from what it is made of and by which code (``herdbook.plan.code``).

Order is part of the meaning (an expert's place, a parent's place), so a key is taken over JSON in which lists keep
their order and only the keys of mappings are sorted. The key travels as one string: Snakemake forgets the order and
the names of inputs and params when it decides whether to run a job again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

SHORT = 12  # hexadecimal digits of a key in file names: 48 bits, ample within one results folder


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        ValueError: If ``value`` holds NaN or an infinity.
        TypeError: If ``value`` holds something that JSON has no form for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()
