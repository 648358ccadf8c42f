"""The architectures that are converted to GGUF, as data: the names of their tensors in it, and what llama.cpp computes with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from herdbook.architectures.gguf_form import Experts, Form, Piece

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.architectures.gguf_form import Reader

LLAMA_READERS: tuple[Reader, ...] = ("sentencepiece", "fallback", "bytes")
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def _attention(rows: bool, biases: str, norms: bool = False) -> tuple[Piece, ...]:
    """Return an attention: whether q and k are reordered, which projections can have a bias, whether q and k have norms."""
    return (
        Piece("attn_q", "self_attn.q_proj", "q" if rows else "", "q" in biases),
        Piece("attn_k", "self_attn.k_proj", "k" if rows else "", "k" in biases),
        Piece("attn_v", "self_attn.v_proj", "", "v" in biases),
        Piece("attn_output", "self_attn.o_proj", "", "o" in biases),
        *(
            (Piece("attn_q_norm", "self_attn.q_norm"), Piece("attn_k_norm", "self_attn.k_norm"))
            if norms
            else ()
        ),
    )


def _mlp(bias: bool = False) -> tuple[Piece, ...]:
    return tuple(Piece(f"ffn_{name}", f"mlp.{name}_proj", bias=bias) for name in ("gate", "up", "down"))


_OWN = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
_MIXTRAL = Experts("block_sparse_moe", {"gate": "w1", "up": "w3", "down": "w2"})
_NORMS = (Piece("attn_norm", "input_layernorm"), Piece("ffn_norm", "post_attention_layernorm"))
_GEMMA_NORMS = (
    Piece("attn_norm", "input_layernorm"),
    Piece("post_attention_norm", "post_attention_layernorm"),
    Piece("ffn_norm", "pre_feedforward_layernorm"),
    Piece("post_ffw_norm", "post_feedforward_layernorm"),
)
_GEMMA_FIXED = {
    "tie_word_embeddings": (True, True),
    "use_bidirectional_attention": (None, None),
}
_EVERY_LAYER = {"decoder_sparse_step": (1, 1), "mlp_only_layers": ([], [])}
_LENGTHS = ("max_position_embeddings", "original_max_position_embeddings")
_LLAMA_SCALING = ("default", "linear", "yarn", "llama3")
# of mixtures whose class the converter does not read (``gguf_equivalent``)
_DEEPSEEK_FIXED = {
    "norm_topk_prob": (False, True),
    "scoring_func": ("softmax", "softmax"),
    "first_k_dense_replace": (0, 0),
    "moe_layer_freq": (1, 1),
    "routed_scaling_factor": (1.0, 1.0),
}

FORMS: dict[str, Form] = {
    "LlamaForCausalLM": Form(
        "llama",
        _attention(True, "qkvo"),
        _mlp(bias=True),
        _NORMS,
        scaling=_LLAMA_SCALING,
        readers=LLAMA_READERS,
    ),
    "MistralForCausalLM": Form(
        "llama",
        _attention(True, "qkvo"),
        _mlp(bias=True),
        _NORMS,
        scaling=_LLAMA_SCALING,
        readers=LLAMA_READERS,
    ),
    "MixtralForCausalLM": Form(
        "llama",
        _attention(True, "qkvo"),
        (),
        _NORMS,
        _MIXTRAL,
        scaling=_LLAMA_SCALING,
        readers=LLAMA_READERS,
    ),
    "Qwen2ForCausalLM": Form("qwen2", _attention(False, "qkv"), _mlp(), _NORMS),
    "Qwen3ForCausalLM": Form("qwen3", _attention(False, "qkv", norms=True), _mlp(), _NORMS),
    "Qwen2MoeForCausalLM": Form(
        "qwen2moe",
        _attention(False, "qkv"),
        (),
        _NORMS,
        Experts("mlp", _OWN, "shared_expert", shared_gate=True),
        {"norm_topk_prob": (False, False), **_EVERY_LAYER},
        readers=("bytes",),
    ),
    "Qwen3MoeForCausalLM": Form(
        "qwen3moe",
        _attention(False, "qkv", norms=True),
        (),
        _NORMS,
        Experts("mlp", _OWN),
        {"norm_topk_prob": (False, True), **_EVERY_LAYER},
        readers=("bytes",),
    ),
    "Gemma2ForCausalLM": Form(
        "gemma2",
        _attention(False, ""),
        _mlp(),
        _GEMMA_NORMS,
        None,
        {**_GEMMA_FIXED, "rope_theta": (10000.0, 10000.0)},
        scaling=("default",),
        activation="gelu_pytorch_tanh",
        tied=True,
        readers=("sentencepiece",),
        activation_key="hidden_activation",
        norm_shift=1.0,
        local_layers=2,
        unwritten=("rope.freq_base",),
        space_prefix=False,
    ),
    "Gemma3ForCausalLM": Form(
        "gemma3",
        _attention(False, "", norms=True),
        _mlp(),
        _GEMMA_NORMS,
        None,
        {**_GEMMA_FIXED, "attn_logit_softcapping": (None, None)},
        scaling=("default", "linear"),
        activation="gelu_pytorch_tanh",
        tied=True,
        activation_key="hidden_activation",
        norm_shift=1.0,
        local_layers=6,
        space_prefix=False,
    ),
    "DeepseekForCausalLM": Form(
        "llama",
        _attention(True, "qkvo"),
        (),
        _NORMS,
        Experts("mlp", _OWN),
        _DEEPSEEK_FIXED,
        scaling=_LLAMA_SCALING,
        readers=LLAMA_READERS,
    ),
    "SmolLM3ForCausalLM": Form(
        "smollm3",
        _attention(True, "qkv"),
        _mlp(),
        _NORMS,
        scaling=("default",),
        tied=True,
        readers=LLAMA_READERS,
    ),
    "Phi3ForCausalLM": Form(
        "phi3",
        (Piece("attn_qkv", "self_attn.qkv_proj"), Piece("attn_output", "self_attn.o_proj")),
        (Piece("ffn_up", "mlp.gate_up_proj"), Piece("ffn_down", "mlp.down_proj")),
        _NORMS,
        scaling=("default", "longrope"),
        readers=("phi3", "bytes"),
        stated=("num_key_value_heads", "rms_norm_eps", "rope_theta", *_LENGTHS),
        partial=True,
    ),
    "GraniteForCausalLM": Form(
        "granite",
        _attention(True, "qkvo"),
        _mlp(bias=True),
        _NORMS,
        scaling=_LLAMA_SCALING,
        readers=LLAMA_READERS,
        stated=("attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier"),
        split_heads=True,
    ),
    "Olmo2ForCausalLM": Form(
        "olmo2",
        _attention(False, "", norms=True),
        _mlp(),
        (
            Piece("post_attention_norm", "post_attention_layernorm"),
            Piece("post_ffw_norm", "post_feedforward_layernorm"),
        ),
        None,
        {"tie_word_embeddings": (False, False)},
        scaling=("default",),
        readers=("bytes",),
        stated=("rms_norm_eps", "rope_theta"),
        split_heads=True,
    ),
    "SeedOssForCausalLM": Form(
        "seed_oss",
        _attention(False, "qkv"),
        _mlp(),
        (
            Piece("attn_norm", "input_layernorm"),
            Piece("post_attention_norm", "post_attention_layernorm"),
        ),
        scaling=("default",),
        readers=("bytes",),
        stated=("head_dim", "num_key_value_heads", "rms_norm_eps", "rope_theta"),
    ),
    "CohereForCausalLM": Form(
        "command-r",
        (
            *_attention(False, ""),
            Piece("attn_q_norm", "self_attn.q_norm", only="use_qk_norm"),
            Piece("attn_k_norm", "self_attn.k_norm", only="use_qk_norm"),
        ),
        _mlp(),
        (Piece("attn_norm", "input_layernorm"),),
        None,
        {"tie_word_embeddings": (True, True)},
        scaling=("default",),
        tied=True,
        readers=("bytes",),
        stated=("layer_norm_eps", "logit_scale", "max_position_embeddings", "rope_theta"),
        split_heads=True,
    ),
    "StableLmForCausalLM": Form(
        "stablelm",
        (
            *_attention(False, "qkv"),
            Piece("attn_q_norm", "self_attn.q_layernorm.norms", only="qk_layernorm", each="q"),
            Piece("attn_k_norm", "self_attn.k_layernorm.norms", only="qk_layernorm", each="k"),
        ),
        _mlp(),
        (
            Piece("attn_norm", "input_layernorm", bias=True),
            Piece("ffn_norm", "post_attention_layernorm", bias=True, unless="use_parallel_residual"),
        ),
        None,
        {"tie_word_embeddings": (False, False), "rope_theta": (10000.0, 10000.0)},
        scaling=("default",),
        readers=("bytes",),
        unwritten=("rope.freq_base", "attention.layer_norm_rms_epsilon"),
        stated=("num_key_value_heads", "max_position_embeddings", "layer_norm_eps", "partial_rotary_factor"),
        partial=True,
    ),
}

# DeepSeek's mixtures with a shared expert: llama.cpp's graph of `llama` has none.
WITH_SHARED = replace(
    FORMS["DeepseekForCausalLM"],
    architecture="granitemoe",
    experts=Experts("mlp", _OWN, "shared_experts"),
    split_heads=True,
)


def form_of(config: Mapping[str, Any]) -> Form | None:
    """Return the form of a model; None if it is not converted."""
    name = (config.get("architectures") or [""])[0]
    if name == "DeepseekForCausalLM" and config.get("n_shared_experts"):
        return WITH_SHARED
    return FORMS.get(name)


def expert_count(config: Mapping[str, Any]) -> int:
    """Return the number of a model's experts, under any of its names; 0 if it is dense."""
    return int(next((config[key] for key in EXPERT_COUNTS if config.get(key)), 0))
