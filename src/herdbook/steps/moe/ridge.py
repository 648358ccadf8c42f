"""Routers by a closed-form fit: ridge regression from the router's input to the expert whose prompt a token is from.

There is no iterative training: for each layer one symmetric eigenproblem is solved. The penalty is the one with the least
error on held-out prompts (each is held out once, by the block form of the leave-one-out identity), and the sharpness of the
softmax is the one under which the held-out prompts are most likely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

PENALTIES = 10.0 ** np.arange(-4, 2.5, 0.5)  # relative to the mean squared length of a token's input
MAX_TOKENS = 16384  # the size of the eigenproblem is the number of tokens
SHARPEST, HALVINGS = 1e4, 80


def ridge_router(inputs: Sequence[Array], experts: Sequence[int], signs: Sequence[int], count: int) -> Array:
    """Fit a layer's router.

    With tokens x_i (rows of X), weights w_i that give each expert's tokens the same total, and targets y_i (one-hot minus
    1 / E for a token of a positive prompt, the negative of that for one of a negative prompt), W minimizes
    ``sum_i w_i |y_i - W x_i|^2 + penalty |W|^2``.

    Args:
        inputs: For each prompt, the router's inputs at its tokens: shape ``(tokens, hidden)``.
        experts: For each prompt, the index of its expert.
        signs: For each prompt, 1 if it is positive, -1 if it is negative.
        count: Number of experts, E.

    Returns:
        Shape ``(E, hidden)``, float64.

    Raises:
        StepError: If the prompts have too many tokens.
    """
    groups = np.repeat(np.arange(len(inputs)), [len(tokens) for tokens in inputs])
    if len(groups) > MAX_TOKENS:
        raise StepError(
            f"gate ridge: the prompts have {len(groups)} tokens; at most {MAX_TOKENS} are supported. Shorten them."
        )
    sides = np.array(
        [expert if sign > 0 else count + expert for expert, sign in zip(experts, signs, strict=True)]
    )[groups]
    weights = 1 / np.bincount(sides, minlength=2 * count)[sides]
    roots = np.sqrt(weights)[:, None]
    x = np.concatenate(inputs).astype(np.float64) * roots
    target = np.eye(count)[sides % count] - 1 / count
    y = np.where((sides < count)[:, None], target, -target) * roots
    with threadpool_limits(1):  # so that the sums do not depend on the number of threads
        values, vectors = np.linalg.eigh(x @ x.T)
        values = np.maximum(values, 0)
        penalties = PENALTIES * max(values.mean(), np.finfo(float).tiny)
        held_out = [_held_out(values, vectors, y, groups, penalty) for penalty in penalties]
        best = int(np.argmin([np.sum((y - predicted) ** 2) for predicted in held_out]))
        dual = vectors @ ((vectors.T @ y) / (values + penalties[best])[:, None])
        positive = sides < count
        scale = _sharpness((held_out[best] / roots)[positive], sides[positive], weights[positive])
        fitted: Array = scale * (dual.T @ x)
    return fitted


def _held_out(values: Array, vectors: Array, y: Array, groups: NDArray[np.intp], penalty: float) -> Array:
    """Return the prediction of each token by a fit on the tokens of all other prompts.

    With the hat matrix H of the whole fit, holding out the rows g changes their residual from r to (I - H_gg)^-1 r.
    """
    shrunk = values / (values + penalty)
    residual = y - vectors @ (shrunk[:, None] * (vectors.T @ y))
    predicted = np.empty_like(y)
    for group in np.unique(groups):
        rows = groups == group
        hat = (vectors[rows] * shrunk) @ vectors[rows].T
        predicted[rows] = y[rows] - np.linalg.solve(np.eye(rows.sum()) - hat, residual[rows])
    return predicted


def _sharpness(scores: Array, own: NDArray[np.intp], weights: Array) -> float:
    """Return the factor on the scores under which the softmax gives each token's own expert the highest likelihood.

    The mean log likelihood is concave in the factor, so the zero of its derivative is found by bisection.
    """

    def slope(factor: float) -> float:
        exponents = factor * scores
        chance = np.exp(exponents - exponents.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        gained = scores[np.arange(len(own)), own] - (chance * scores).sum(axis=1)
        return float(weights @ gained)

    low, high = 1.0, SHARPEST  # targets differ by one: with a factor below 1, routing would be almost uniform
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low
