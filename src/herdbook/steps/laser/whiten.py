"""SVD-LLM: decompositions by a matrix's outputs on a text, not by the matrix itself.

For inputs X (tokens by columns) and outputs Y = X W^T, the best W' of a rank, which changes Y least in the Frobenius norm,
is W projected on the leading directions of the outputs: W' = U_k U_k^T W, where U are the eigenvectors of Y^T Y (Qi et al.
2026, Swift-SVD, arXiv:2604.01609, whose tokens are rows and whose W is ours transposed). So one eigendecomposition is enough.
SVD-LLM (Wang et al. 2024, arXiv:2403.07378, section 3.1) arrives at the same result through S with S S^T = X^T X, as the
truncated SVD of W S times the inverse of S, which needs X^T X to be positive definite; the projection does not. The result
is one dense matrix with the shape of W.

For a tall W, Y^T Y has the larger side. With R^T R = W^T W, W = Q R for a Q with orthonormal columns, so that
Y^T Y = Q (R X^T X R^T) Q^T: the eigenvectors are U = Q Z with Z those of the square of the smaller side in the brackets.
That this gives the same result on the smaller side is ours.

The result is only as good as the calibration text: directions that the text never uses are removed first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from herdbook.inference.linear_inputs import LinearInputs
from herdbook.steps.laser.decompose import Decomposition, eigen, gram_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from herdbook.inference.forward import LayerwiseModel
    from herdbook.steps.laser.store import DecompositionStore

# Singular values below this share of the largest are rounding errors, in directions without any output.
SMALL = 1e-7


def whiten_layer(
    model: LayerwiseModel,
    module: torch.nn.Module,
    streams: Sequence[torch.Tensor],
    matrices: Mapping[str, tuple[torch.Tensor, str]],
    store: DecompositionStore,
    calibration: str,
) -> None:
    """Add the missing whitened decompositions of a layer's matrices to a store.

    Args:
        model: The model.
        module: The layer, with its weights.
        streams: The hidden states that enter the layer, one item per sequence.
        matrices: By name inside the layer: the matrix, and the digest of its bytes.
        store: The store of decompositions.
        calibration: Digest of model and text.
    """
    missing = {name: pair for name, pair in matrices.items() if not store.has(*pair, calibration)}
    if not missing:
        return
    by_name = moments(model, module, streams, list(missing))

    def add(name: str) -> None:
        matrix, sha256 = missing[name]
        store.decomposition(matrix, sha256, calibration, lambda: whiten(matrix, by_name[name], store.device))

    model.each(add, missing)


def moments(
    model: LayerwiseModel, module: torch.nn.Module, streams: Sequence[torch.Tensor], matrices: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return second moments of the inputs or the outputs of a layer's matrices, whichever are narrower.

    Args:
        model: The model.
        module: The layer, with its weights.
        streams: The hidden states that enter the layer, one item per sequence.
        matrices: Names inside the layer, such as ``mlp.up_proj``.

    Returns:
        By name, in float64: Y^T Y if the matrix has no more rows than columns, otherwise X^T X; sums over all tokens, in
        the order of the sequences.
    """
    totals: dict[str, np.ndarray] = {}
    for start in range(0, len(streams), model.threads):
        for of_sequence in model.each(
            lambda stream: _moments(model, module, stream, matrices), streams[start : start + model.threads]
        ):
            for name, moment in of_sequence.items():
                totals[name] = totals[name] + moment if name in totals else moment
    return totals


def _moments(
    model: LayerwiseModel, module: torch.nn.Module, stream: torch.Tensor, matrices: Sequence[str]
) -> dict[str, np.ndarray]:
    by_name = {}
    for name, inputs in capture(model, module, stream, matrices).items():
        weight = module.get_submodule(name).weight
        wide = inputs.to(torch.float64)
        if weight.shape[0] <= weight.shape[1]:
            wide = wide @ weight.to(torch.float64).T
        by_name[name] = (wide.T @ wide).cpu().numpy()
    return by_name


def capture(
    model: LayerwiseModel, module: torch.nn.Module, stream: torch.Tensor, matrices: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return the inputs of a layer's matrices as it processes a stream: by name, shape ``(tokens, columns)``."""
    inputs: dict[str, torch.Tensor] = {}
    with torch.no_grad(), LinearInputs(module, matrices, inputs.__setitem__):
        model.apply(module, stream)
    return inputs


def whiten(matrix: torch.Tensor, moment: np.ndarray, device: str = "cpu") -> Decomposition:
    """Return the decomposition of a matrix by its outputs.

    Args:
        matrix: Shape ``(rows, columns)``.
        moment: Second moment of its outputs if it has no more rows than columns, otherwise of its inputs; float64.
        device: Where to compute.

    Returns:
        The values are the singular values of the outputs, Y; their squares sum to the outputs' energy. ``approximate``
        then returns the matrix that changes Y least.
    """
    rows, columns = matrix.shape
    if rows <= columns:
        # Projecting the outputs is projecting the smaller side, as `approximate` does for a matrix that is not tall.
        return Decomposition(*eigen(moment, device))
    # Tall, with C = X^T X: R C R^T =: Z diag(s^2) Z^T and U = Q Z. From U_k = W C R^T Z_k / s^2, without an inverse of R or C:
    # U_k U_k^T W = W (C R^T Z_k / s^2) (R^T Z_k)^T, an oblique projector on the inputs' side.
    R = root(gram_matrix(matrix, device), device)
    values, Z = eigen(R @ moment @ R.T, device)
    dual = R.T @ Z
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(values > SMALL * values[0], values**-2.0, 0.0)
    return Decomposition(values, moment @ dual * inverse, dual)


def root(gram: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Return an R with R^T R = ``gram``: Cholesky's factor, or, where columns depend on others, one by the eigenvectors."""
    try:
        return np.ascontiguousarray(np.linalg.cholesky(gram).T)
    except np.linalg.LinAlgError:
        roots, directions = eigen(gram, device)
        return np.ascontiguousarray((directions * roots).T)
