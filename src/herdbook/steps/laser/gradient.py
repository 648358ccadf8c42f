"""Predicting the effect of reductions on the loss: its gradient with respect to the singular values of every matrix.

Removing the singular values beyond a rank changes the loss, to first order, by minus the sum of s_i dL/ds_i over them,
where dL/ds_i = u_i^T G v_i and G is the gradient with respect to the matrix. So one backward pass over a calibration
text predicts the effect of every reduction, and only the promising ones need to be tried.

Source: Sreeram et al. 2025, arXiv:2510.20800, for ranking matrices by these gradients on about 100 samples. The
prediction by the sum is ours. The paper also clusters rows: ``herdbook.steps.laser.clusters``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from herdbook.architectures.dense import layer_of, matrix_of
from herdbook.recipe.rank import Clustered
from herdbook.steps.laser.rank import keep
from herdbook.steps.laser.reduce import Cut

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from herdbook.inference.forward import LayerwiseModel
    from herdbook.recipe import RankRule
    from herdbook.steps.laser.decompose import Decomposition
    from herdbook.steps.laser.states import States


def gradients(
    model: LayerwiseModel, states: States, sequences: Sequence[Sequence[int]], names: Sequence[str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the gradient of the mean loss with respect to matrices, from the last layer to the first.

    Only one layer's weights and gradients are in memory. Gradients of sequences are added in the order of the sequences.

    Args:
        model: The model.
        states: The hidden states that enter each layer.
        sequences: Token ids; all sequences have the same weight.
        names: Full names of the matrices.

    Yields:
        The name, and the gradient in float64, shape ``(rows, columns)``.
    """
    upstream = model.loss_gradients(states.entering(model.layers), sequences)
    lowest = min((layer_of(name) or 0 for name in names), default=0)
    for number in range(model.layers - 1, lowest - 1, -1):
        in_layer = [name for name in names if layer_of(name) == number]
        with model.layer(number) as module:
            weights = [
                module.get_submodule(str(matrix_of(name))).weight.requires_grad_() for name in in_layer
            ]

            def backward(
                pair: tuple[torch.Tensor, torch.Tensor],
                module: torch.nn.Module = module,
                weights: list[torch.Tensor] = weights,
            ) -> tuple[torch.Tensor, ...]:
                stream, above = pair[0].requires_grad_(), pair[1]
                found: tuple[torch.Tensor, ...] = torch.autograd.grad(
                    model.apply(module, stream), [stream, *weights], above
                )
                return found

            pairs = list(zip(states.entering(number), upstream, strict=True))
            totals = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
            upstream = []
            for start in range(0, len(pairs), model.threads):
                for below, *of_weights in model.each(backward, pairs[start : start + model.threads]):
                    upstream.append(below)
                    totals = [total + gradient for total, gradient in zip(totals, of_weights, strict=True)]
        yield from zip(in_layer, (total.cpu() for total in totals), strict=True)


def predicted_change(
    matrix: torch.Tensor, decomposition: Decomposition, rule: RankRule, gradient: torch.Tensor
) -> float:
    """Return the change of the loss that a rule's reduction would cause, to first order, in nats.

    Args:
        matrix: Shape ``(rows, columns)``.
        decomposition: The matrix's own decomposition (not a whitened one).
        rule: The rule.
        gradient: The gradient of the loss with respect to the matrix, float64.
    """
    if isinstance(rule, Clustered):  # the clusters' singular vectors are not the matrix's
        change = Cut(matrix, decomposition, rule).make().to(torch.float64) - matrix.to(torch.float64)
        return float((gradient * change).sum())
    rank = keep(rule, decomposition.values, *matrix.shape).rank
    return float(predicted_changes(matrix, decomposition, gradient)[rank])


def predicted_changes(
    matrix: torch.Tensor, decomposition: Decomposition, gradient: torch.Tensor
) -> np.ndarray:
    """Return, for each rank, the change of the loss that a reduction to it would cause, to first order.

    Args:
        matrix: Shape ``(rows, columns)``.
        decomposition: The matrix's own decomposition (not a whitened one).
        gradient: The gradient of the loss with respect to the matrix, float64.

    Returns:
        In nats, shape ``(min(rows, columns) + 1,)``: at index k the sum of -s_i u_i^T G v_i over i >= k.
    """
    A, G = matrix.to(torch.float64).numpy(), gradient.numpy()
    if A.shape[0] <= A.shape[1]:
        A, G = A.T, G.T
    V = decomposition.basis
    terms = ((A @ V) * (G @ V)).sum(axis=0)  # s_i u_i = A v_i
    return np.concatenate([-np.cumsum(terms[::-1])[::-1], [0.0]])
