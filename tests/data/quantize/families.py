"""Small seeded models of each family that is converted to GGUF, as Hugging Face folders.

Needs numpy only. The names of the tensors are those of transformers, restated here by plain loops, independent of
``herdbook.architectures``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from small_models import encoded, rounded

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, HIDDEN, FFN, EXPERT_FFN, SHARED_FFN = 4, 32, 64, 32, 48
HEADS, KV_HEADS, HEAD_DIM, VOCABULARY, EXPERTS = 4, 2, 8, 320, 2

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SPARSE = {
    "moe_intermediate_size": EXPERT_FFN,
    "num_experts": EXPERTS,
    "num_experts_per_tok": 1,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
GEMMA = {
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": HEAD_DIM,
    "sliding_window": 16,
}
DEEPSEEK = {
    "architectures": ["DeepseekForCausalLM"],
    "model_type": "deepseek",
    "moe_intermediate_size": EXPERT_FFN,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "scoring_func": "softmax",
    "first_k_dense_replace": 0,
    "moe_layer_freq": 1,
}
# By name: what a config.json has in addition to, or in place of, what all have.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama3": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_scaling": LLAMA3},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
    "qwen2_moe": {
        "architectures": ["Qwen2MoeForCausalLM"],
        "model_type": "qwen2_moe",
        "shared_expert_intermediate_size": SHARED_FFN,
        "norm_topk_prob": False,
        **SPARSE,
    },
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "norm_topk_prob": True,
        **SPARSE,
    },
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "rope_theta": 10000.0,
        **GEMMA,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "rope_local_base_freq": 3000.0,
        "sliding_window_pattern": 6,
        **GEMMA,
    },
    "phi3": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 512,
        "sliding_window": None,
    },
    "stablelm": {
        "architectures": ["StableLmForCausalLM"],
        "model_type": "stablelm",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "use_qkv_bias": True,
        "use_parallel_residual": False,
        "layer_norm_eps": 1e-5,
    },
    "stablelm-parallel": {
        "architectures": ["StableLmForCausalLM"],
        "model_type": "stablelm",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.25,
        "use_parallel_residual": True,
        "layer_norm_eps": 1e-5,
    },
    "smollm3": {
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "tie_word_embeddings": True,
    },
    "gemma3-scaled": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "rope_local_base_freq": 3000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 6,
        **GEMMA,
        "num_hidden_layers": 6,
    },
    "phi3-long": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "original_max_position_embeddings": 256,
        "rope_scaling": {
            "type": "longrope",
            "long_factor": [1.0, 2.5, 4.0, 7.3],
            "short_factor": [1.0, 1.1, 1.2, 1.7],
        },
        "sliding_window": None,
    },
    "phi4-mini": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "original_max_position_embeddings": 256,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {
            "type": "longrope",
            "long_factor": [1.0, 3.1, 6.4],
            "short_factor": [1.0, 1.0, 1.3],
        },
        "sliding_window": 512,
        "tie_word_embeddings": True,
    },
    "stablelm-normed": {
        "architectures": ["StableLmForCausalLM"],
        "model_type": "stablelm",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.25,
        "use_parallel_residual": True,
        "layer_norm_eps": 1e-5,
        "qk_layernorm": True,
    },
    "granite": {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "attention_multiplier": 0.21,
        "embedding_multiplier": 3.5,
        "logits_scaling": 2.5,
        "residual_multiplier": 0.4,
        "tie_word_embeddings": True,
    },
    "olmo2": {"architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2"},
    "seed-oss": {
        "architectures": ["SeedOssForCausalLM"],
        "model_type": "seed_oss",
        "attention_bias": True,
        "attention_out_bias": False,
    },
    "command-r": {
        "architectures": ["CohereForCausalLM"],
        "model_type": "cohere",
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.3,
        "model_max_length": 1024,
        "tie_word_embeddings": True,
    },
    "command-r-normed": {
        "architectures": ["CohereForCausalLM"],
        "model_type": "cohere",
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.3,
        "num_hidden_layers": 64,
        "tie_word_embeddings": True,
        "use_qk_norm": True,
    },
    "deepseek": {**DEEPSEEK, "n_shared_experts": None},
    "deepseek-shared": {**DEEPSEEK, "attention_bias": True, "n_shared_experts": 1},
}


def config(name: str) -> dict[str, Any]:
    """Return a family's ``config.json``."""
    settings = COMMON | CONFIGS[name]
    if name.startswith("stablelm"):
        del settings["rms_norm_eps"], settings["head_dim"]
    if name.startswith("command-r"):
        del settings["rms_norm_eps"]
    if name.startswith(("phi", "granite", "olmo2", "command-r")):
        del settings["head_dim"]
    return settings


def names(name: str) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a family and their shapes."""
    settings = config(name)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    if name.startswith("stablelm"):
        shapes["model.norm.bias"] = (HIDDEN,)
    if not settings["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    for layer in range(settings["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        if name != "olmo2":
            shapes[f"{prefix}.input_layernorm.weight"] = (HIDDEN,)
        if not settings.get("use_parallel_residual") and not name.startswith("command-r"):
            shapes[f"{prefix}.post_attention_layernorm.weight"] = (HIDDEN,)
        if name == "olmo2":
            shapes[f"{prefix}.post_feedforward_layernorm.weight"] = (HIDDEN,)
            shapes[f"{prefix}.self_attn.q_norm.weight"] = (HEADS * HEAD_DIM,)
            shapes[f"{prefix}.self_attn.k_norm.weight"] = (KV_HEADS * HEAD_DIM,)
        if settings.get("use_qk_norm"):
            shapes[f"{prefix}.self_attn.q_norm.weight"] = (HEADS, HEAD_DIM)
            shapes[f"{prefix}.self_attn.k_norm.weight"] = (KV_HEADS, HEAD_DIM)
        if name.startswith("stablelm"):
            for norm in ("input_layernorm", "post_attention_layernorm"):
                if f"{prefix}.{norm}.weight" in shapes:
                    shapes[f"{prefix}.{norm}.bias"] = (HIDDEN,)
        if name.startswith("gemma"):
            shapes[f"{prefix}.pre_feedforward_layernorm.weight"] = (HIDDEN,)
            shapes[f"{prefix}.post_feedforward_layernorm.weight"] = (HIDDEN,)
        if name.startswith("phi"):
            shapes[f"{prefix}.self_attn.qkv_proj.weight"] = ((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN)
            shapes[f"{prefix}.self_attn.o_proj.weight"] = (HIDDEN, HEADS * HEAD_DIM)
            shapes[f"{prefix}.mlp.gate_up_proj.weight"] = (2 * FFN, HIDDEN)
            shapes[f"{prefix}.mlp.down_proj.weight"] = (HIDDEN, FFN)
            continue
        for projection, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            shapes[f"{prefix}.self_attn.{projection}_proj.weight"] = (heads * HEAD_DIM, HIDDEN)
            if name.startswith("qwen2") or name == "stablelm" or settings.get("attention_bias"):
                shapes[f"{prefix}.self_attn.{projection}_proj.bias"] = (heads * HEAD_DIM,)
            if settings.get("qk_layernorm") and projection != "v":
                for head in range(heads):
                    norm = f"{prefix}.self_attn.{projection}_layernorm.norms.{head}.weight"
                    shapes[norm] = (HEAD_DIM,)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (HIDDEN, HEADS * HEAD_DIM)
        if settings.get("attention_out_bias", settings.get("attention_bias")):
            shapes[f"{prefix}.self_attn.o_proj.bias"] = (HIDDEN,)
        if name.startswith(("qwen3", "gemma3")):
            shapes[f"{prefix}.self_attn.q_norm.weight"] = (HEAD_DIM,)
            shapes[f"{prefix}.self_attn.k_norm.weight"] = (HEAD_DIM,)
        mlps = {"mlp": FFN}
        if name.endswith("moe") or name.startswith("deepseek"):
            count = settings.get("n_routed_experts", EXPERTS)
            shapes[f"{prefix}.mlp.gate.weight"] = (count, HIDDEN)
            mlps = {f"mlp.experts.{expert}": EXPERT_FFN for expert in range(count)}
            if name == "qwen2_moe":
                mlps["mlp.shared_expert"] = SHARED_FFN
                shapes[f"{prefix}.mlp.shared_expert_gate.weight"] = (1, HIDDEN)
            if name == "deepseek-shared":
                mlps["mlp.shared_experts"] = EXPERT_FFN
        for mlp, width in mlps.items():
            shapes[f"{prefix}.{mlp}.gate_proj.weight"] = (width, HIDDEN)
            shapes[f"{prefix}.{mlp}.up_proj.weight"] = (width, HIDDEN)
            shapes[f"{prefix}.{mlp}.down_proj.weight"] = (HIDDEN, width)
    return shapes


def write_folder(name: str, folder: Path) -> None:
    """Write the Hugging Face folder: one file, bfloat16, and the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = np.random.PCG64(7)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for tensor, shape in names(name).items():
        raw = stream.random_raw(int(np.prod(shape)) + 1).view("<u2").reshape(-1, 4)[:-1]
        values = (raw.sum(axis=1, dtype=np.int64) - 2 * 65535).astype(np.float32) / np.float32(2**17)
        piece = encoded(rounded(values.reshape(shape), "BF16"), "BF16")
        offsets = [len(data), len(data) + len(piece)]
        header[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": offsets}
        data += piece
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    (folder / "config.json").write_text(json.dumps(config(name)), encoding="utf-8")
