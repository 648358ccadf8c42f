"""Routers: a row for each expert in each layer, made from prompts or drawn at random. Nothing is trained.

The modes and their formulas are those of mergekit-moe 0.1.5, with two differences that make the result depend on the
prompts alone: the base runs in float32, and each prompt passes alone (mergekit pads prompts into one batch and runs
in bfloat16). ``hidden_avg`` therefore counts no padding. Random rows are seeded by the tensor's name.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import torch

from herdbook.forward import EMBEDDINGS, Folder, hidden_states, tokenize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

TINY = 1e-8  # rows shorter than this stay near zero instead of blowing up
Prompts = tuple[list[str], list[str]]  # positive and negative ones of an expert


def router_rows(gate: str, folder: Path, prompts: Sequence[Prompts], layers: int) -> Iterator[torch.Tensor]:
    """Yield the router of each layer.

    Args:
        gate: ``hidden`` (the last token's stream), ``hidden_avg`` (the mean over tokens), or ``cheap_embed`` (the mean
            of the tokens' embeddings, the same in every layer).
        folder: The base model, as transformers loads it.
        prompts: For each expert, positive and negative prompts.
        layers: Number of layers.

    Yields:
        Tensors of shape ``(experts, hidden)``, float32, each row of length one.
    """
    flat = [prompt for both in prompts for side in both for prompt in side]
    sequences = tokenize(folder, flat)
    if gate == "cheap_embed":
        table = Folder(folder)[EMBEDDINGS]
        rows = _rows(prompts, [table[torch.tensor(ids)].sum(dim=0) for ids in sequences], _sum_then_normalize)
        yield from (rows for _ in range(layers))
        return
    pick: Callable[[torch.Tensor], torch.Tensor] = (
        (lambda stream: stream[-1]) if gate == "hidden" else (lambda stream: stream.mean(dim=0))
    )
    for streams in hidden_states(folder, sequences):
        yield _rows(prompts, [pick(stream) for stream in streams], _mean)


def random_rows(gate: str, name: str, shape: tuple[int, int], seed: int) -> torch.Tensor:
    """Return a router drawn at random: standard normal, or uniform within 1 / sqrt(hidden) of zero.

    Args:
        gate: ``random`` or ``uniform_random``.
        name: The tensor's name, which seeds it together with ``seed``, so that order and threads do not matter.
        shape: ``(experts, hidden)``.
        seed: The recipe's seed.
    """
    generator = torch.Generator().manual_seed(
        int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:15], 16)
    )
    if gate == "random":
        return torch.randn(shape, generator=generator)
    bound = 1 / math.sqrt(shape[1])
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def _rows(
    prompts: Sequence[Prompts],
    vectors: list[torch.Tensor],
    join: Callable[[list[torch.Tensor]], torch.Tensor],
) -> torch.Tensor:
    """Return one normalized row for each expert: its positive prompts' vector less its negative prompts'."""
    remaining = iter(vectors)
    rows = []
    for positive, negative in prompts:
        row = join([next(remaining) for _ in positive])
        if negative:
            row = row - join([next(remaining) for _ in negative])
        rows.append(_normalize(row))
    return torch.stack(rows)


def _mean(vectors: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(vectors).mean(dim=0)


def _sum_then_normalize(vectors: list[torch.Tensor]) -> torch.Tensor:
    return _normalize(torch.stack(vectors).sum(dim=0))


def _normalize(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm().clamp(min=TINY)
