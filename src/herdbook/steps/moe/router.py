"""Routers: a row for each expert in each layer, computed from prompts. Nothing is trained.

``hidden``, ``hidden_avg`` and ``cheap_embed`` are the modes of mergekit-moe, with two differences that make the result
depend only on the prompts: the base runs in float32, and each prompt is read separately (mergekit pads prompts into one
batch and runs in bfloat16; ``herdbook.steps.moe.mergekit_gates`` reproduces its bits). They read the stream that enters a
layer. A router's actual input is the stream after that layer's attention and norm, which the other modes read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from herdbook.inference.forward import EMBEDDINGS
from herdbook.inference.prompts import tokenize
from herdbook.inference.tensors import CheckpointFolder
from herdbook.steps.moe.states import StateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from herdbook.steps.moe.states import Kind

    Vectors = list[torch.Tensor]

TINY = 1e-8  # rows shorter than this stay near zero when they are normalized
Prompts = tuple[list[str], list[str]]  # the positive and the negative prompts of an expert


def router_rows(
    gate: str,
    folder: Path,
    prompts: Sequence[Prompts],
    layers: int,
    *,
    chat_template: bool = False,
    kept: Path | None = None,
) -> Iterator[torch.Tensor]:
    """Yield the router of each layer.

    Args:
        gate: ``hidden`` (the stream that enters the layer, at the last token), ``hidden_avg`` (its mean over tokens),
            ``cheap_embed`` (the mean of the tokens' embeddings, the same in every layer), ``router_input`` and
            ``router_input_avg`` (like the first two, on the router's input), ``centred`` (like ``router_input_avg``,
            minus the mean over experts), or ``ridge`` (see ``herdbook.steps.moe.ridge``).
        folder: The base model's folder.
        prompts: For each expert, positive and negative prompts.
        layers: Number of layers.
        chat_template: Whether the base's chat template is applied to the prompts.
        kept: The folder in which the base's hidden states are kept; None to keep none.

    Yields:
        Tensors of shape ``(experts, hidden)``, float32; each row has length one, except for ``ridge``.

    Raises:
        StepError: If the base cannot read a prompt.
    """
    flat = [prompt for sides in prompts for side in sides for prompt in side]
    sequences = tokenize(folder, flat, chat_template=chat_template)
    if gate == "cheap_embed":
        weights = CheckpointFolder(folder)
        rows = _rows(
            prompts, [weights.rows(EMBEDDINGS, ids).sum(dim=0) for ids in sequences], _sum_then_normalize
        )
        yield from (rows for _ in range(layers))
        return
    kind: Kind = "stream" if gate.startswith("hidden") else "mlp"
    states = StateStore(kept).read(kind, folder, sequences, layers)
    if gate == "ridge":
        yield from (_fitted(prompts, inputs) for inputs in states)
        return
    pick = _last if gate in {"hidden", "router_input"} else _average
    for streams in states:
        yield _rows(prompts, [pick(stream) for stream in streams], _mean, centred=gate == "centred")


def _fitted(prompts: Sequence[Prompts], inputs: Vectors) -> torch.Tensor:
    """Return a layer's router by ridge regression."""
    from herdbook.steps.moe.ridge import ridge_router

    labels = [
        (expert, sign)
        for expert, sides in enumerate(prompts)
        for sign, side in zip((1, -1), sides, strict=True)
        for _ in side
    ]
    arrays = [tokens.double().numpy() for tokens in inputs]
    rows = ridge_router(arrays, [expert for expert, _ in labels], [sign for _, sign in labels], len(prompts))
    return torch.from_numpy(rows).float()


def _rows(
    prompts: Sequence[Prompts],
    vectors: Vectors,
    join: Callable[[Vectors], torch.Tensor],
    *,
    centred: bool = False,
) -> torch.Tensor:
    """Return one normalized row for each expert: its positive prompts' vector minus its negative prompts'."""
    remaining = iter(vectors)
    rows = []
    for positive, negative in prompts:
        row = join([next(remaining) for _ in positive])
        if negative:
            row = row - join([next(remaining) for _ in negative])
        rows.append(row)
    if centred:
        middle = _mean(rows)
        rows = [row - middle for row in rows]
    return torch.stack([_normalize(row) for row in rows])


def _last(stream: torch.Tensor) -> torch.Tensor:
    return stream[-1]


def _average(stream: torch.Tensor) -> torch.Tensor:
    return stream.mean(dim=0)


def _mean(vectors: Vectors) -> torch.Tensor:
    return torch.stack(vectors).mean(dim=0)


def _sum_then_normalize(vectors: Vectors) -> torch.Tensor:
    return _normalize(torch.stack(vectors).sum(dim=0))


def _normalize(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm().clamp(min=TINY)
