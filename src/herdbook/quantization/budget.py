"""A budget of bits per weight: the type of each tensor, so that as little as possible is lost by measured error.

The loss of a tensor is the share of its energy that the error has: the sum of the squares of the errors over that of the
weights, each column weighed by an importance matrix if there is one. All tensors count the same, whatever their size. From the
smallest types on, the step to a wider type that gains most for each bit is taken, until none fits: of the types of a tensor, only
those on the lower convex hull of its losses over its bits are steps (Fox 1966, "Discrete optimization via marginal analysis").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from herdbook.quantization.tensor import ENDS, Typed, is_quantized
from herdbook.quantization.types import TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Types that are chosen from: all that programs compute with at a usual speed, the narrowest first.
CANDIDATES = (
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_S",
    "Q2_K",
    "IQ3_XXS",
    "Q3_K",
    "IQ3_S",
    "IQ4_XS",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_0",
)
NARROW = ("IQ4_NL", "Q4_0", "Q5_0", "Q8_0", "F16")  # for rows that are no multiple of 256
ROUNDING = 1e-6  # of a bit, so that a budget that is a quotient of bits and weights leads back to these bits
# What the header names as the file's method: the one of about so many bits.
NAMED = ((2.9, "Q2_K"), (3.9, "Q3_K_M"), (4.95, "Q4_K_M"), (5.8, "Q5_K_M"), (7.0, "Q6_K"), (16.0, "Q8_0"))


def candidates(name: str, width: int, *, matrix: bool) -> tuple[str, ...]:
    """Return the types that a tensor may get, the narrowest first.

    Args:
        name: Its name.
        width: The length of its rows.
        matrix: Whether there is an importance matrix, which embeddings and output matrix have no part in.
    """
    kinds = CANDIDATES if TYPES["Q4_K"].fits(width) else NARROW
    usable = matrix and name not in ENDS
    return tuple(
        kind for kind in kinds if TYPES[kind].fits(width) and (usable or not TYPES[kind].needs_matrix)
    )


def smallest(tensors: Iterable[Typed], *, matrix: bool) -> float:
    """Return the bits per weight of a file in which every tensor has the narrowest type that it may get."""
    bits = parameters = 0
    for tensor in tensors:
        own = tensor
        if is_quantized(tensor.name, tensor.shape):
            own = Typed(
                tensor.name, tensor.shape, candidates(tensor.name, tensor.shape[-1], matrix=matrix)[0]
            )
        bits += 8 * own.size_bytes
        parameters += own.parameters
    return bits / parameters


def bits_within(bits_per_weight: float, tensors: Iterable[Typed]) -> int:
    """Return the most bits that all tensors may have together."""
    parameters = sum(tensor.parameters for tensor in tensors)
    return math.floor(bits_per_weight * parameters + ROUNDING)


@dataclass(frozen=True)
class _Step:
    gain: float
    name: str
    order: int
    kind: str
    bits: int


def allocate(
    tensors: Iterable[Typed], losses: Mapping[str, Mapping[str, float]], bits_per_weight: float
) -> dict[str, str]:
    """Return the type of each tensor.

    Args:
        tensors: All tensors; those without losses keep their type.
        losses: The loss of each tensor in each type that it may get.
        bits_per_weight: The budget: the bits of all tensors divided by the weights are no more.
    """
    tensors = list(tensors)
    types, spent, steps = {}, 0, []
    for tensor in tensors:
        types[tensor.name] = tensor.type
        if own := losses.get(tensor.name):
            hull = _hull({kind: (8 * _as(tensor, kind).size_bytes, loss) for kind, loss in own.items()})
            types[tensor.name] = hull[0][0]
            spent += hull[0][1]
            for order, (before, after) in enumerate(pairwise(hull)):
                bits = after[1] - before[1]
                steps.append(_Step((before[2] - after[2]) / bits, tensor.name, order, after[0], bits))
        else:
            spent += 8 * tensor.size_bytes
    left = bits_within(bits_per_weight, tensors) - spent
    full: set[str] = set()
    for step in sorted(steps, key=lambda step: (-step.gain, step.name, step.order)):
        if step.bits > left:
            full.add(step.name)
        elif step.name not in full:
            types[step.name] = step.kind
            left -= step.bits
    return types


def _as(tensor: Typed, kind: str) -> Typed:
    return Typed(tensor.name, tensor.shape, kind)


def _hull(options: Mapping[str, tuple[int, float]]) -> list[tuple[str, int, float]]:
    """Return the options on the lower convex hull of loss over bits, the narrowest first."""
    hull: list[tuple[str, int, float]] = []
    for kind, (bits, loss) in sorted(options.items(), key=lambda item: (item[1], item[0])):
        if hull and (loss >= hull[-1][2] or bits == hull[-1][1]):
            continue
        while len(hull) > 1 and _slope(hull[-2], (kind, bits, loss)) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append((kind, bits, loss))
    return hull


def _slope(one: tuple[str, int, float], other: tuple[str, int, float]) -> float:
    """Return by how much the loss falls for each bit."""
    return (one[2] - other[2]) / (other[1] - one[1])
