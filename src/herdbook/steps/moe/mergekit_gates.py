"""Routers with the bits of mergekit-moe 0.1.4 and 0.1.5, on the same versions of torch and transformers.

mergekit's formulas differ from ours in the last digits: the base runs in bfloat16, and the prompts of an expert are one
batch, padded on the left. ``hidden_avg`` averages over the padding, too. The base is still loaded layer by layer:
transformers' own forward pass runs on a skeleton whose layers load their weights when they are called.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from herdbook.inference.expressions import check_time
from herdbook.inference.forward import (
    EMBEDDINGS,
    LAST_NORM,
    check_sequences,
    skeleton,
)
from herdbook.inference.tensors import CheckpointFolder
from herdbook.inference.tokenizer import ids_of, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from herdbook.steps.moe.router import Prompts

TINY = 1e-8


def mergekit_rows(gate: str, folder: Path, prompts: Sequence[Prompts]) -> torch.Tensor:
    """Return the routers of all layers.

    Args:
        gate: ``hidden``, ``hidden_avg`` or ``cheap_embed``.
        folder: The base model.
        prompts: For each expert, positive and negative prompts.

    Returns:
        Shape ``(layers, experts, hidden)``: bfloat16, or float32 for ``cheap_embed``.

    Raises:
        StepError: If the base cannot read a prompt.
    """
    tokenizer = copy.deepcopy(load_tokenizer(folder))
    tokenizer.padding_side = "left"
    if tokenizer.bos_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    else:
        tokenizer.pad_token_id = tokenizer.bos_token_id
    config, model = skeleton(folder, torch.bfloat16)
    vectors = _embedded(folder, config) if gate == "cheap_embed" else _run(folder, model, gate)

    def side(texts: list[str]) -> torch.Tensor:
        start = tokenizer.bos_token or ""
        check_time(tokenizer, [*texts, *(start + text for text in texts)], "prompts")
        for number, text in enumerate(texts, start=1):
            ids_of(tokenizer, text, f"prompt {number}")
        batch = tokenizer(
            [start + text for text in texts], return_tensors="pt", padding=True, add_special_tokens=False
        )
        check_sequences(batch["input_ids"].tolist(), config, "prompt")
        return vectors(batch)

    rows = []
    for positive, negative in prompts:
        row = side(positive)
        if negative:
            row = row - side(negative)
        rows.append(row / row.norm(p=2, dim=-1, keepdim=True).clamp(min=TINY))
    return torch.stack(rows, dim=1)


def _embedded(folder: Path, config: Any) -> Callable[[Any], torch.Tensor]:
    """Return a function from a batch to its summed embeddings, normalized to length one: shape ``(layers, hidden)``."""
    table = CheckpointFolder(folder)[EMBEDDINGS]

    def vectors(batch: Any) -> torch.Tensor:
        embedded = table[batch["input_ids"]] * batch["attention_mask"].unsqueeze(-1)
        total = embedded.sum(dim=1).sum(dim=0, keepdim=True)
        unit = total / total.norm(dim=-1, keepdim=True).clamp(min=TINY)
        return unit.repeat(config.num_hidden_layers, 1)

    return vectors


def _run(folder: Path, model: Any, gate: str) -> Callable[[Any], torch.Tensor]:
    """Return a function from a batch to the state that enters each layer: shape ``(layers, hidden)``, bfloat16."""
    weights = CheckpointFolder(folder)

    def load(module: Any, prefix: str) -> None:
        state = {
            name.removeprefix(prefix): weights.stored(name).to(torch.bfloat16)
            for name in weights.spans
            if name.startswith(prefix) and not name.endswith("inv_freq")
        }
        module.load_state_dict(state, assign=True)

    def attach(layer: Any, prefix: str) -> None:
        layer.register_forward_pre_hook(lambda module, _: load(module, prefix))
        layer.register_forward_hook(lambda module, *_: module.to("meta") and None)

    load(model.embed_tokens, EMBEDDINGS.removesuffix("weight"))
    load(model.norm, LAST_NORM.removesuffix("weight"))
    for number, layer in enumerate(model.layers):
        attach(layer, f"model.layers.{number}.")

    def vectors(batch: Any) -> torch.Tensor:
        with torch.no_grad():
            states = model(**batch, output_hidden_states=True, return_dict=True).hidden_states
        streams = torch.stack(states[:-1])  # layers, prompts, tokens, hidden
        picked = streams.sum(dim=2) / streams.shape[2] if gate == "hidden_avg" else streams[:, :, -1, :]
        return picked.sum(dim=1) / picked.shape[1]

    return vectors
