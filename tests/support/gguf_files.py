"""GGUF files of mixtures, written with the gguf library from tensors as mergekit names them."""

import gguf
import libgguf
import numpy as np
from gguf.constants import GGMLQuantizationType as Kind

from support.strangers import LAYERS

HEADS, KV = 4, 2


def gguf_names(experts):
    """Yield the name of each tensor of a mixture in a GGUF file, and the names of those that it is made from."""
    yield "token_embd.weight", ["model.embed_tokens.weight"]
    yield "output_norm.weight", ["model.norm.weight"]
    yield "output.weight", ["lm_head.weight"]
    for layer in range(LAYERS):
        theirs = f"model.layers.{layer}"
        yield f"blk.{layer}.attn_norm.weight", [f"{theirs}.input_layernorm.weight"]
        yield f"blk.{layer}.ffn_norm.weight", [f"{theirs}.post_attention_layernorm.weight"]
        for ours, name in (("q", "q"), ("k", "k"), ("v", "v"), ("output", "o")):
            yield f"blk.{layer}.attn_{ours}.weight", [f"{theirs}.self_attn.{name}_proj.weight"]
        yield f"blk.{layer}.ffn_gate_inp.weight", [f"{theirs}.block_sparse_moe.gate.weight"]
        for ours, name in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            yield (
                f"blk.{layer}.ffn_{ours}_exps.weight",
                [f"{theirs}.block_sparse_moe.experts.{one}.{name}.weight" for one in range(experts)],
            )


def side_by_side(rows, heads):
    """Put the rows of each head's two halves next to each other, one by one."""
    out, half = np.empty_like(rows), len(rows) // heads // 2
    for head in range(heads):
        for place in range(half):
            out[head * 2 * half + 2 * place] = rows[head * 2 * half + place]
            out[head * 2 * half + 2 * place + 1] = rows[head * 2 * half + half + place]
    return out


def write_gguf(path, tensors, kind, config, *, imatrix=False, theta=5000.0, more=lambda _: None):
    """Write a GGUF with the gguf library, encoded by it or, where it cannot, by ggml's own quantizers; ``more`` adds entries."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(theta)
    writer.add_expert_count(2)
    writer.add_expert_used_count(2)
    writer.add_vocab_size(config["vocab_size"])
    more(writer)
    for name, sources in gguf_names(2):
        arrays = [tensors[one].float().numpy() for one in sources]
        values = np.stack(arrays) if "exps" in name else arrays[0]
        if "attn_q" in name or "attn_k" in name:
            values = side_by_side(values, HEADS if "attn_q" in name else KV)
        if values.ndim == 1 or "gate_inp" in name:
            writer.add_tensor(name, values)
        elif kind in {Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0}:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            weights = np.linspace(0.5, 2, values.shape[-1], dtype=np.float32) if imatrix else None
            rows = libgguf.quantize_rows(values.reshape(-1, values.shape[-1]), int(kind), weights)
            rows = np.asarray(rows).view(np.uint8).reshape(*values.shape[:-1], -1)
            writer.add_tensor(name, rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
