"""The safetensors tensors that each tensor of a GGUF is made from: names, stacked experts, the order of q and k rows.

Facts of the format, from llama.cpp's converter:

- Rotary embeddings: Hugging Face rotates pairs that lie half a head apart. In some architectures ggml rotates pairs that lie
  side by side, so within each head, row ``i`` of the first half and row ``i`` of the second half of q and k become neighbours.
- The experts of a layer are stacked along a new first axis.
- The scaling of rotary embeddings of Llama 3 is a tensor of factors, and LongRoPE is two, which follow from ``config.json``.
- Norms of single heads are stacked, too.

Norms, biases and routers are kept in F32; a tied output matrix is not stored a second time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from herdbook.architectures.conversion import objection, scaled_by
from herdbook.architectures.defaults import head_width, key_value_heads
from herdbook.architectures.dense import rope_of
from herdbook.architectures.gguf_forms import expert_count, form_of
from herdbook.errors import CheckpointError, StepError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from herdbook.architectures.gguf_form import Experts, Form, Piece, Rows

ROPE_FREQUENCIES = "rope_freqs.weight"
# LongRoPE's factors: those for contexts that are longer than the original one, and the others.
ROPE_FACTORS = {"rope_factors_long.weight": "long_factor", "rope_factors_short.weight": "short_factor"}


@dataclass(frozen=True)
class TensorLayout:
    """How one tensor of a GGUF is made.

    Args:
        name: Its name in the GGUF.
        sources: The tensors it is made from, by their names in the safetensors; several are stacked in this order. None for
            a tensor that follows from ``config.json``.
        heads: Number of heads whose rows are reordered; 0 if rows keep their order.
        stacked: Whether the sources are stacked along a new first axis.
        required: Whether every model has it.
        length: The number of weights of a tensor without sources.
        is_row: Whether it is a vector, and its source a matrix of one row.
        shift: What is added to each weight.
    """

    name: str
    sources: tuple[str, ...]
    heads: int = 0
    stacked: bool = False
    required: bool = True
    length: int = 0
    is_row: bool = False
    shift: float = 0.0


def gguf_architecture(config: Mapping[str, Any]) -> str:
    """Return the name of a model's architecture in a GGUF, which has one."""
    form = form_of(config)
    assert form is not None  # noqa: S101 - `layout` refuses it before
    return form.architecture


def layout(config: Mapping[str, Any], where: str) -> dict[str, TensorLayout]:
    """Return all tensors that the GGUF of such a model can have, by their names in the GGUF.

    Args:
        config: The model's ``config.json``.
        where: The model's name in errors.

    Raises:
        CheckpointError: If ``config`` lacks a number that every such model has.
        StepError: If the architecture, a setting or the number of experts is not supported.
    """
    if reason := objection(config):
        raise StepError(f"{where}: {reason}.")
    form = form_of(config)
    assert form is not None  # noqa: S101 - otherwise there is an objection
    for key in ("num_attention_heads", "num_hidden_layers"):
        if key not in config:
            raise CheckpointError(f"{where}: config.json lacks {key}")
    if form.experts and (count := expert_count(config)) < 2:
        raise StepError(f"{where}: a mixture of {count} experts is not supported.")
    parts = [
        TensorLayout("token_embd.weight", ("model.embed_tokens.weight",)),
        TensorLayout("output_norm.weight", ("model.norm.weight",), shift=form.norm_shift),
        *(
            [TensorLayout("output_norm.bias", ("model.norm.bias",))]
            if any(norm.bias for norm in form.norms)
            else []
        ),
        # a tied model may still contain an output matrix, which the converter then writes
        TensorLayout(
            "output.weight", ("lm_head.weight",), required=not config.get("tie_word_embeddings", form.tied)
        ),
    ]
    if scaled_by(config, "llama3"):
        parts.append(TensorLayout(ROPE_FREQUENCIES, (), length=head_width(config) // 2))
    if factors := scaled_by(config, "longrope"):
        parts += [TensorLayout(name, (), length=len(factors[key])) for name, key in ROPE_FACTORS.items()]
    for layer in range(config["num_hidden_layers"]):
        parts += _layer(form, config, layer)
    return {part.name: part for part in parts}


def _layer(form: Form, config: Mapping[str, Any], layer: int) -> Iterator[TensorLayout]:
    ours, theirs = f"blk.{layer}", f"model.layers.{layer}"
    experts = form.experts
    for piece in (*form.norms, *form.attention, *form.mlp):
        if (piece.unless and config.get(piece.unless)) or (piece.only and not config.get(piece.only)):
            continue
        shift = form.norm_shift if piece.name.endswith("_norm") else 0.0
        name, source = f"{ours}.{piece.name}", f"{theirs}.{piece.source}"
        if piece.each:
            sources = tuple(f"{source}.{head}.weight" for head in range(_heads(piece.each, config)))
            yield TensorLayout(f"{name}.weight", sources, stacked=True)
            continue
        for part in _tensors(piece, name, source, _heads(piece.rows, config)):
            yield replace(part, shift=shift)
    if experts:
        yield from _mixture(experts, f"{ours}.ffn", f"{theirs}.{experts.block}", config)


def _heads(rows: Rows, config: Mapping[str, Any]) -> int:
    """Return the number of heads of queries or of keys; 0 for neither."""
    if not rows:
        return 0
    heads = int(config["num_attention_heads"])
    return heads if rows == "q" else key_value_heads(config)


def _tensors(piece: Piece, name: str, source: str, heads: int) -> Iterator[TensorLayout]:
    yield TensorLayout(f"{name}.weight", (f"{source}.weight",), heads, required=piece.required)
    if piece.bias:
        yield TensorLayout(f"{name}.bias", (f"{source}.bias",), heads, required=False)


def _mixture(experts: Experts, name: str, source: str, config: Mapping[str, Any]) -> Iterator[TensorLayout]:
    yield TensorLayout(f"{name}_gate_inp.weight", (f"{source}.gate.weight",))
    for ours, theirs in experts.matrices.items():
        sources = tuple(
            f"{source}.experts.{expert}.{theirs}.weight" for expert in range(expert_count(config))
        )
        yield TensorLayout(f"{name}_{ours}_exps.weight", sources, stacked=True)
    if experts.shared:
        for ours, theirs in experts.matrices.items():
            yield TensorLayout(f"{name}_{ours}_shexp.weight", (f"{source}.{experts.shared}.{theirs}.weight",))
    if experts.shared_gate:
        gate = f"{source}.{experts.shared}_gate.weight"
        yield TensorLayout(f"{name}_gate_inp_shexp.weight", (gate,), is_row=True)


def derived(config: Mapping[str, Any], name: str) -> list[float]:
    """Return a tensor of a GGUF that follows from ``config.json`` alone."""
    if name == ROPE_FREQUENCIES:
        return rope_frequencies(config)
    factors = scaled_by(config, "longrope")
    assert factors is not None  # noqa: S101 - only such models have the tensor
    return [float(factor) for factor in factors[ROPE_FACTORS[name]]]


def rope_frequencies(config: Mapping[str, Any]) -> list[float]:
    """Return what divides each frequency of the rotary embeddings of a Llama 3.

    Wavelengths below ``original_max_position_embeddings / high_freq_factor`` stay, those above
    ``original_max_position_embeddings / low_freq_factor`` are stretched by ``factor``, and between them it is interpolated.
    """
    base, scaling = rope_of(dict(config))
    assert scaling is not None  # noqa: S101 - only such models have the tensor
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    context, factor, width = (
        scaling["original_max_position_embeddings"],
        scaling["factor"],
        head_width(config),
    )
    factors = []
    for index in range(0, width, 2):
        turns = context / (2 * math.pi * base ** (index / width))
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - share) / factor + share))
    return factors


def made_from(config: Mapping[str, Any], tensors: Collection[str], where: str) -> dict[str, TensorLayout]:
    """Return the tensors of the GGUF of a model that has certain tensors, by their names in the GGUF.

    Args:
        config: The model's ``config.json``.
        tensors: The names of the tensors that the model has.
        where: The model's name in errors.

    Raises:
        CheckpointError: If tensors are missing, or a GGUF could not contain one.
        StepError: As ``layout``.
    """
    parts = {
        name: part
        for name, part in layout(config, where).items()
        if part.required or any(source in tensors for source in part.sources)
    }
    for part in parts.values():
        for source in part.sources:
            if source not in tensors:
                raise CheckpointError(f"{where}: the tensor {source} is missing")
    known = {source for part in parts.values() for source in part.sources}
    # old checkpoints contain the rotary frequencies, which can be computed
    unused = [name for name in sorted(tensors) if name not in known and not name.endswith(".inv_freq")]
    if unused:
        raise CheckpointError(f"{where}: has tensors that a GGUF cannot contain: {', '.join(unused)}")
    return parts


def shape_of(part: TensorLayout, shapes: Mapping[str, tuple[int, ...]], where: str) -> tuple[int, ...]:
    """Return the shape of a tensor in a GGUF, from those of the tensors that it is made from.

    Raises:
        CheckpointError: If experts differ in shape, or rows cannot be divided among heads.
    """
    if not part.sources:
        return (part.length,)
    found = {shapes[source] for source in part.sources}
    if len(found) > 1:
        raise CheckpointError(f"{where}: the tensors stacked in {part.name} differ in shape: {sorted(found)}")
    shape = found.pop()
    if part.heads and shape[0] % (2 * part.heads):
        raise CheckpointError(
            f"{where}: the {shape[0]} rows of {part.sources[0]} cannot be divided among {part.heads} heads"
        )
    if part.is_row:
        if len(shape) != 2 or shape[0] != 1:
            raise CheckpointError(f"{where}: {part.sources[0]} is not one row: its shape is {list(shape)}")
        return shape[1:]
    return (len(part.sources), *shape) if part.stacked else shape


def gguf_shapes(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model's GGUF by name, from those of its own tensors. Raises as ``made_from``."""
    return {name: shape_of(part, shapes, where) for name, part in made_from(config, shapes, where).items()}


def row_order(rows: int, heads: int) -> NDArray[np.intp]:
    """Return, for each row of a GGUF's q or k, the index of its row in the safetensors.

    Args:
        rows: Number of rows, ``heads * head_dim``.
        heads: Number of heads; 0 for tensors that are not reordered.

    Returns:
        ``(rows,)`` integers.
    """
    import numpy as np  # late: the list of tensors is compared where it is not installed, too

    order = np.arange(rows)
    if not heads:
        return order
    return order.reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(rows)
