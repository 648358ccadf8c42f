"""The types of a model's ``config.json`` and ``generation_config.json``: checked once, where they are read, so that no other code has to.

Only keys that Herdbook reads have a type here. Which of them a model must have, and what their values mean, others check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from herdbook.faults import told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Number = Annotated[int, Field(gt=-(2**40), lt=2**40)]
Length = Annotated[int, Field(gt=0, lt=2**40)]
Tokens = Number | list[Number]
Dtype = Literal["bfloat16", "float16", "float32", "float64"]


class Config(BaseModel):
    """The content of ``config.json``; null stands for a key that is missing."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())

    architectures: list[str] | None = None
    attention_bias: bool | None = None
    bos_token_id: Tokens | None = None
    decoder_sparse_step: Number | None = None
    dtype: Dtype | None = None
    eos_token_id: Tokens | None = None
    first_k_dense_replace: Number | None = None
    head_dim: Number | None = None
    hidden_act: str | None = None
    hidden_activation: str | None = None
    hidden_size: Number | None = None
    intermediate_size: Number | None = None
    layer_types: list[str] | None = None
    max_position_embeddings: Length | None = None
    max_seq_len: Length | None = None
    max_window_layers: Number | None = None
    mlp_bias: bool | None = None
    mlp_only_layers: list[Number] | None = None
    model_type: str | None = None
    moe_intermediate_size: Number | None = None
    moe_layer_freq: Number | list[Number] | None = None
    n_positions: Length | None = None
    n_routed_experts: Number | None = None
    n_shared_experts: Number | None = None
    norm_topk_prob: bool | None = None
    num_attention_heads: Number | None = None
    num_experts: Number | None = None
    num_experts_per_tok: Number | None = None
    num_hidden_layers: Number | None = None
    num_key_value_heads: Number | None = None
    num_local_experts: Number | None = None
    pad_token_id: Tokens | None = None
    partial_rotary_factor: float | None = None
    qkv_bias: bool | None = None
    return_dict: Literal[True] | None = None  # transformers 5 fails otherwise
    rms_norm_eps: Annotated[float, Field(ge=0)] | None = None
    rope_local_base_freq: float | None = None
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_theta: Annotated[float, Field(gt=0)] | None = None
    rotary_emb_base: float | None = None
    rotary_pct: float | None = None
    shared_expert_intermediate_size: Number | None = None
    sliding_window: Annotated[int, Field(ge=0, lt=2**40)] | None = None
    tie_word_embeddings: bool | None = None
    torch_dtype: Dtype | None = None
    use_sliding_window: bool | None = None
    vocab_size: Number | None = None


class _Rope(BaseModel):
    """Settings of rotary embeddings: numbers, lists of them, and names."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, float | str | bool | list[float] | None]

    rope_theta: Annotated[float, Field(gt=0)] | None = None
    rope_type: str | None = None
    type: str | None = None


class Generation(BaseModel):
    """The content of ``generation_config.json``; null stands for a key that is missing."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    bos_token_id: Tokens | None = None
    decoder_start_token_id: Tokens | None = None
    do_sample: bool | None = None
    eos_token_id: Tokens | None = None
    max_length: Number | None = None
    max_new_tokens: Number | None = None
    pad_token_id: Tokens | None = None
    repetition_penalty: float | None = None
    temperature: float | None = None
    top_k: Number | None = None
    top_p: float | None = None


def wrong_generation(content: Mapping[str, Any]) -> list[str]:
    """Return which values of a generation config have another type than they must have, and why, one line each."""
    try:
        Generation.model_validate(dict(content))
    except ValidationError as error:
        return told(error, content)
    return []


def wrong_types(config: Mapping[str, Any]) -> list[str]:
    """Return which values of a configuration have another type than they must have, and why, one line each."""
    try:
        known = Config.model_validate(dict(config))
    except ValidationError as error:
        return told(error, config)
    problems = []
    for where, section in _ropes(known):
        try:
            _Rope.model_validate(section)
        except ValidationError as error:
            problems += [f"{where}.{problem}" for problem in told(error, section)]
    return problems


def _ropes(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the settings of rotary embeddings, with their place; some types have them for each kind of layer."""
    for key in ("rope_parameters", "rope_scaling"):
        section = getattr(config, key) or {}
        kinds = {kind: inner for kind, inner in section.items() if isinstance(inner, dict)}
        yield key, {name: value for name, value in section.items() if name not in kinds}
        yield from ((f"{key}.{kind}", inner) for kind, inner in kinds.items())
