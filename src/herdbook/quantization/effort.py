"""How long encoding takes in each type, relative to Q4_K without an importance matrix: for estimates, and for what is worth copying.

The figures are those of libgguf 0.2.2 (``benchmarks/quantize.py --speeds``), rounded so that no type is estimated as faster than
it is.
"""

from __future__ import annotations

from herdbook.quantization.types import TYPES

# Types whose scale follows from a block's largest number; measured: 16 to 120.
UNSEARCHED = 10.0
# Types whose scales are searched for, without an importance matrix ...
_SEARCHED = {
    "Q2_K": 1.0,
    "Q3_K": 5.0,
    "Q4_K": 1.0,
    "Q5_K": 1.0,
    "Q6_K": 1.2,
    "IQ3_S": 0.25,
    "IQ4_NL": 0.3,
    "IQ4_XS": 0.3,
    "MXFP4": 3.0,
}
# ... and with one.
_WEIGHED = {
    "Q4_0": 1.5,
    "Q4_1": 0.5,
    "Q5_0": 1.4,
    "Q5_1": 0.4,
    "Q2_K": 0.4,
    "Q3_K": 1.3,
    "Q4_K": 0.5,
    "Q5_K": 0.45,
    "Q6_K": 0.9,
    "IQ1_S": 0.45,
    "IQ1_M": 0.08,
    "IQ2_XXS": 0.15,
    "IQ2_XS": 0.08,
    "IQ2_S": 0.3,
    "IQ3_XXS": 0.2,
    "IQ3_S": 0.25,
    "IQ4_NL": 0.3,
    "IQ4_XS": 0.3,
}


def speed(kind: str, *, matrix: bool) -> float:
    """Return how many weights are encoded while one is in Q4_K without an importance matrix.

    Args:
        kind: The type.
        matrix: Whether there is an importance matrix; types that do not use one ignore it.
    """
    if (matrix and TYPES[kind].weighs) or TYPES[kind].needs_matrix:
        return _WEIGHED[kind]
    return _SEARCHED.get(kind, UNSEARCHED)


def is_costly(kind: str, *, matrix: bool) -> bool:
    """Return whether encoding takes much longer than reading and digesting what is encoded."""
    return speed(kind, matrix=matrix) < UNSEARCHED
