"""Hidden states of a dense model, layer by layer, with one layer in memory: no GPU and no whole model is needed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from herdbook.checkpoint import INDEX_NAME, read_header, read_span
from herdbook.errors import CheckpointError, StepError
from herdbook.tensors import from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

EMBEDDINGS = "model.embed_tokens.weight"


class Folder:
    """The tensors of a model folder, by name, in float32."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        index = folder / INDEX_NAME
        files = (
            sorted(set(json.loads(index.read_text())["weight_map"].values()))
            if index.exists()
            else ["model.safetensors"]
        )
        self._spans = {
            name: (folder / file, span) for file in files for name, span in read_header(folder / file).items()
        }

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor in float32. Raises CheckpointError if the folder has none of this name."""
        if name not in self._spans:
            raise CheckpointError(f"{self.path}: has no tensor {name}")
        path, span = self._spans[name]
        return from_bytes(read_span(path, span), span.dtype, span.shape, f"{path}: {name}").to(torch.float32)

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names start with ``prefix``, by the rest of their names."""
        return {name.removeprefix(prefix): self[name] for name in self._spans if name.startswith(prefix)}


def tokenize(folder: Path, prompts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each prompt, with the beginning-of-sequence token where the tokenizer has one.

    The token is put in front as text and no other special token is added, as mergekit does it.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    start = tokenizer.bos_token or ""
    return [tokenizer(start + prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]


def hidden_states(folder: Path, sequences: Sequence[Sequence[int]]) -> Iterator[list[torch.Tensor]]:
    """Yield what enters each layer, from the first to the last.

    Each sequence passes alone, in float32, so that the result does not depend on how prompts are batched.

    Args:
        folder: A model of the Llama family, as transformers loads it.
        sequences: Token ids.

    Yields:
        For each layer, one tensor of shape ``(tokens, hidden)`` for each sequence, float32. The first are the embeddings.

    Raises:
        StepError: If a sequence is empty, longer than the model can read, or has an id beyond its vocabulary.
    """
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    _check(sequences, config)
    weights = Folder(folder)
    with torch.device("meta"):
        skeleton: Any = AutoModel.from_config(config, attn_implementation="sdpa").eval()
    rotary = type(skeleton.rotary_emb)(config)
    table = weights[EMBEDDINGS]
    streams = [table[torch.tensor(list(ids))].unsqueeze(0) for ids in sequences]
    del table
    positions = [
        rotary(stream, position_ids=torch.arange(stream.shape[1]).unsqueeze(0)) for stream in streams
    ]
    with torch.no_grad():
        for number, layer in enumerate(skeleton.layers):
            yield [stream[0] for stream in streams]
            if number + 1 == len(skeleton.layers):
                return
            layer.load_state_dict(weights.below(f"model.layers.{number}."), assign=True)
            # Without a mask and with more than one token, scaled dot product attention is causal.
            streams = [
                layer(stream, attention_mask=None, position_embeddings=places)
                for stream, places in zip(streams, positions, strict=True)
            ]
            layer.to("meta")


def _check(sequences: Sequence[Sequence[int]], config: Any) -> None:
    longest = min(
        config.max_position_embeddings,
        getattr(config, "sliding_window", None) or config.max_position_embeddings,
    )
    for number, ids in enumerate(sequences, start=1):
        if not ids:
            raise StepError(f"prompt {number} has no tokens")
        if len(ids) > longest:
            raise StepError(
                f"prompt {number} has {len(ids)} tokens; the base model reads {longest} at once. Shorten it."
            )
        if max(ids) >= config.vocab_size:
            raise StepError(
                f"prompt {number} has token {max(ids)}, beyond the model's vocabulary of {config.vocab_size}"
            )
