"""The form of an architecture in GGUF: its tensors, and its settings as far as llama.cpp computes the same with them.

A form is what llama.cpp's converter writes for a class of transformers, and llama.cpp's loader and graph read. A tensor that
is not in it could not be read; a setting that is not `fixed` to what the graph computes would be ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Rows = Literal["", "q", "k"]
# SentencePiece's own file; the same, with the added tokens of all files, unless the tokenizer is GPT-2's; merges with a fallback to
# bytes, as in Llama 2; tokens of bytes, in GPT-2's spelling.
Reader = Literal["sentencepiece", "phi3", "fallback", "bytes"]


@dataclass(frozen=True)
class Piece:
    """A tensor of a layer.

    Args:
        name: Its name in the GGUF, inside the layer, without suffix.
        source: Its name in the safetensors, inside the layer, without suffix.
        rows: Whose heads' rows are reordered: those of queries or of keys.
        bias: Whether it can have a bias.
        required: Whether every model has it.
        unless: A setting of ``config.json`` with which no layer has it.
        only: A setting of ``config.json`` without which no layer has it.
        each: Whose heads have one each, which are stacked: those of queries or of keys.
    """

    name: str
    source: str
    rows: Rows = ""
    bias: bool = False
    required: bool = True
    unless: str | None = None
    only: str | None = None
    each: Rows = ""


@dataclass(frozen=True)
class Experts:
    """The mixture in a layer.

    Args:
        block: Its name in the safetensors, inside the layer.
        matrices: By the matrix's name in the GGUF, its name inside an expert.
        shared: The name of the shared expert inside the block, if it has one.
        shared_gate: Whether the shared expert has a gate of its own.
    """

    block: str
    matrices: Mapping[str, str] = field(hash=False)
    shared: str | None = None
    shared_gate: bool = False


@dataclass(frozen=True)
class Form:
    """An architecture in GGUF.

    Args:
        architecture: Its name in GGUF files.
        attention: The tensors of the attention.
        mlp: The tensors of a dense MLP.
        norms: The norms of a layer.
        experts: The mixture; None for a dense model.
        fixed: Settings of ``config.json`` that llama.cpp does not read: what transformers takes if one is absent, and the only
            value with which llama.cpp computes the same.
        scaling: The ways to scale rotary embeddings that the converter writes and the graph computes with.
        activation: The only activation.
        tied: Whether output and embeddings are tied if ``config.json`` does not state it.
        readers: The ways in which the converter reads a tokenizer, of which it takes the first that fits.
        activation_key: The key of ``config.json`` for the activation.
        norm_shift: What transformers adds to the weights of norms, and the converter adds for good.
        local_layers: Of as many layers, all but the last have a sliding window; 0 if none has.
        unwritten: Hyperparameters of ``gguf_settings`` that are not in the header.
        space_prefix: Whether SentencePiece puts a space before a text; the header states it if not.
        stated: Settings without which the converter fails, though transformers has defaults for them.
        partial: Whether a part of each head is rotated, as the header states.
        split_heads: Whether heads are as wide as the hidden size divided by their number, whatever ``config.json`` states.
    """

    architecture: str
    attention: tuple[Piece, ...]
    mlp: tuple[Piece, ...]
    norms: tuple[Piece, ...]
    experts: Experts | None = None
    fixed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict, hash=False)
    scaling: tuple[str, ...] = ("default", "linear", "yarn")
    activation: str = "silu"
    tied: bool = False
    readers: tuple[Reader, ...] = ("sentencepiece", "bytes")
    activation_key: str = "hidden_act"
    norm_shift: float = 0.0
    local_layers: int = 0
    unwritten: tuple[str, ...] = ()
    space_prefix: bool = True
    stated: tuple[str, ...] = ()
    partial: bool = False
    split_heads: bool = False
