"""SVD-LLM: decompositions that tell what a matrix does to its inputs, not what it is.

For inputs X (tokens by columns) and outputs Y = X W^T, the best W' of a rank, that which least changes Y in the
Frobenius norm, is W projected on the leading directions of the outputs: W' = U_k U_k^T W, U being the eigenvectors of
Y^T Y. SVD-LLM finds the same by way of S, S S^T = X^T X, as the truncated SVD of W S times the inverse of S
(W S S^-1 cancels), which needs X^T X to be positive definite; the projection does not. The result is folded back into
one dense matrix of the shape of W. Source: Wang et al. 2024, arXiv:2403.07378, section 3.1.

It is only as good as the calibration text: directions that the text never uses are cut first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from herdbook.steps.laser.decompose import Decomposition, eigen, gram_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from herdbook.inference.forward import LayerwiseModel
    from herdbook.steps.laser.store import DecompositionStore

SMALL = (
    1e-7  # singular values below this share of the largest are noise of the arithmetic: no output goes there
)


def whiten_layer(
    model: LayerwiseModel,
    module: Any,
    streams: Sequence[torch.Tensor],
    matrices: Mapping[str, tuple[torch.Tensor, str]],
    store: DecompositionStore,
    calibration: str,
) -> None:
    """Put whitened decompositions of a layer's matrices into a store, those that it does not have.

    Args:
        model: The model.
        module: The layer, with its weights.
        streams: What enters the layer, a sequence each.
        matrices: By name inside the layer: the matrix, and the digest of its bytes.
        store: Where decompositions are kept.
        calibration: Digest of model and text.
    """
    missing = {name: pair for name, pair in matrices.items() if not store.has(*pair, calibration)}
    if not missing:
        return
    found = moments(model, module, streams, list(missing))

    def one(name: str) -> None:
        matrix, sha256 = missing[name]
        store.decomposition(matrix, sha256, calibration, lambda: whiten(matrix, found[name], store.device))

    model.each(one, missing)


def moments(
    model: LayerwiseModel, module: Any, streams: Sequence[torch.Tensor], matrices: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return second moments of what enters or leaves matrices of a layer, whichever is narrower.

    Args:
        model: The model.
        module: The layer, with its weights.
        streams: What enters the layer, a sequence each.
        matrices: Names inside the layer, such as ``mlp.up_proj``.

    Returns:
        By name, in float64: Y^T Y if the matrix has no more rows than columns, else X^T X. Sums over all tokens, in
        the order of the sequences.
    """
    totals: dict[str, np.ndarray] = {}
    for start in range(0, len(streams), model.threads):
        for found in model.each(
            lambda stream: _moments(model, module, stream, matrices), streams[start : start + model.threads]
        ):
            for name, moment in found.items():
                totals[name] = totals[name] + moment if name in totals else moment
    return totals


def _moments(
    model: LayerwiseModel, module: Any, stream: torch.Tensor, matrices: Sequence[str]
) -> dict[str, np.ndarray]:
    found = {}
    for name, inputs in capture(model, module, stream, matrices).items():
        weight = module.get_submodule(name).weight
        wide = inputs.to(torch.float64)
        if weight.shape[0] <= weight.shape[1]:
            wide = wide @ weight.to(torch.float64).T
        found[name] = (wide.T @ wide).cpu().numpy()
    return found


def capture(
    model: LayerwiseModel, module: Any, stream: torch.Tensor, matrices: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return what enters matrices of a layer when a stream passes: by name, shape ``(tokens, columns)``."""
    seen: dict[str, torch.Tensor] = {}
    weights = {id(module.get_submodule(name).weight): name for name in matrices}

    class Watching(torch.overrides.TorchFunctionMode):  # type: ignore[misc]
        """Sees the inputs of linear layers in this thread alone, where a hook would see those of all threads."""

        def __torch_function__(
            self,
            function: Any,
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            del types
            if function is torch.nn.functional.linear:
                name = weights.get(id(args[1]))
                if name is not None:
                    seen[name] = args[0][0]
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Watching():
        model.apply(module, stream)
    return seen


def whiten(matrix: torch.Tensor, moment: np.ndarray, device: str = "cpu") -> Decomposition:
    """Return the decomposition of a matrix by what it does to inputs.

    Args:
        matrix: Shape ``(rows, columns)``.
        moment: Second moment of its outputs if it has no more rows than columns, else of its inputs; float64.
        device: Where to compute.

    Returns:
        Values: singular values of the outputs, Y. Their squares sum to the outputs' energy. ``approximate`` then
        gives the matrix that least changes Y.
    """
    rows, columns = matrix.shape
    if rows <= columns:
        # Projecting the outputs is projecting the smaller side, which is how `approximate` takes a matrix that is not tall.
        return Decomposition(*eigen(moment, device))
    # Tall: with X^T X = S S^T and G = W^T W, the values are those of S^T G S =: V diag(s^2) V^T, U_k = W S V_k / s, and
    # U_k U_k^T W = W (S V_k) (V_k^T S^T G / s^2): an oblique projector on the inputs' side.
    roots, directions = eigen(moment, device)
    S = directions * roots
    G = gram_matrix(matrix, device)
    values, V = eigen(S.T @ G @ S, device)
    basis = S @ V
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(values > SMALL * values[0], values**-2.0, 0.0)
    return Decomposition(values, basis, np.ascontiguousarray(G @ basis * inverse))
