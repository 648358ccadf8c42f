"""Paired tests on the same documents: whether they differ, and by how much.

All sums are of integers, and all random bits come from Python's Mersenne Twister, so that every machine gets the same result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    import numpy as np

SEED = 1234
FLIPS = 9999
RESAMPLES = 2000
ENUMERATED = 16  # differences other than 0 up to which all signs are tried
EXACT = "all signs"
DRAWN = f"{FLIPS} random signs"
LARGEST = 1 << 61  # of a sum in 64 bits
CHUNK_BYTES = 1 << 25


@dataclass(frozen=True)
class Paired:
    """A paired comparison.

    Args:
        difference: Sum of the differences divided by the sum of the sizes.
        low: Lower end of its 95 % interval.
        high: Upper end of the interval.
        p: Probability of a difference at least as large if the signs of all differences were random.
        least_p: The smallest probability that so many documents can give, if all differ.
        test: How it was computed: over all signs, or over random ones.
    """

    difference: float
    low: float
    high: float
    p: float
    least_p: float
    test: str


def paired(differences: Sequence[Decimal], sizes: Sequence[int]) -> Paired:
    """Compare two models on the same documents.

    The test is Fisher's: if the models are equal, each difference is as likely with the other sign. The probability is
    exact if few documents differ, or all by the same amount (then it is the exact McNemar test); otherwise random signs
    are drawn. The interval is that of the paired bootstrap, by percentiles.

    Args:
        differences: For each document, one model's result minus the other's.
        sizes: The weight of each document in the mean: 1, or its length in bytes.

    Raises:
        ValueError: If there are no documents, or the lists differ in length.

    Source: Fisher 1935, The Design of Experiments, section 21; Efron and Tibshirani 1993, sections 13.3 and 15.
    """
    if len(differences) != len(sizes) or not sizes:
        raise ValueError("paired tests need the same documents, at least one")
    scale = min((int(value.as_tuple().exponent) for value in differences), default=0)
    whole = [int(value.scaleb(-scale)) for value in differences]
    nonzero = [value for value in whole if value]
    least = 2.0 ** (1 - len(whole))
    p, test = _sign_flips(nonzero)
    low, high = _interval(whole, sizes)
    unit = 10.0**scale
    return Paired(
        sum(whole) / sum(sizes) * unit,
        low * unit,
        high * unit,
        p,
        max(least, 1 / (FLIPS + 1)) if test == DRAWN else least,
        test,
    )


def _sign_flips(values: Sequence[int]) -> tuple[float, str]:
    """Return the two-sided probability of a sum at least as far from 0, and how it was computed."""
    count, observed = len(values), abs(sum(values))
    sizes = {abs(value) for value in values}
    if count == 0:
        return 1.0, EXACT
    if len(sizes) == 1:
        most = (count + observed // sizes.pop()) // 2  # how many have the more frequent sign
        extreme = sum(math.comb(count, number) for number in range(most, count + 1))
        return min(1.0, 2 * extreme / 2**count), EXACT
    if count <= ENUMERATED:
        sums = [0]
        for value in values:
            sums = [total + sign for total in sums for sign in (value, -value)]
        return sum(abs(total) >= observed for total in sums) / len(sums), EXACT
    whole = _in_64_bits(values)
    found, observed = 0, abs(int(whole.sum()))
    for bits in _random_bits(count):
        found += int((abs(bits @ (2 * whole) - whole.sum()) >= observed).sum())
    return (found + 1) / (FLIPS + 1), DRAWN


def _random_bits(count: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield matrices with a row of random bits for each draw."""
    import numpy as np

    random, width = Random(SEED), -(-count // 8)  # noqa: S311 - anyone must be able to repeat the draw
    step = max(1, CHUNK_BYTES // (8 * count))
    for start in range(0, FLIPS, step):
        rows = min(step, FLIPS - start)
        drawn = np.frombuffer(random.randbytes(rows * width), dtype=np.uint8).reshape(rows, width)
        yield np.unpackbits(drawn, axis=1, count=count).astype(np.int64)


def _interval(values: Sequence[int], sizes: Sequence[int]) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of the difference over documents drawn with replacement."""
    import numpy as np

    above, below = _in_64_bits(values), np.asarray(sizes, dtype=np.int64)
    shrunk = _shift(values)
    random, count = Random(SEED), len(values)  # noqa: S311 - anyone must be able to repeat the draw
    step = max(1, CHUNK_BYTES // (8 * count))
    found: list[float] = []
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        words = np.frombuffer(random.randbytes(4 * rows * count), dtype="<u4").reshape(rows, count)
        chosen = (words.astype(np.uint64) * np.uint64(count)) >> np.uint64(32)
        sums, weights = above[chosen].sum(axis=1), below[chosen].sum(axis=1)
        found += [
            (int(top) << shrunk) / int(bottom) for top, bottom in zip(sums, weights, strict=True) if bottom
        ]
    found.sort()
    tail = RESAMPLES // 40
    return found[tail - 1], found[-tail]


def _shift(values: Sequence[int]) -> int:
    """Return how many bits of the values are left out, so that no sum of them overflows; usually 0."""
    most = 2 * len(values) * max(map(abs, values), default=0)
    return max(0, most.bit_length() - LARGEST.bit_length())


def _in_64_bits(values: Sequence[int]) -> np.ndarray[Any, Any]:
    import numpy as np

    shift = _shift(values)
    return np.asarray([(abs(value) >> shift) * (1 if value > 0 else -1) for value in values], dtype=np.int64)
