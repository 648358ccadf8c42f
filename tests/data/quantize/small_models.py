"""Small seeded models for the tests of quantization, each as a Hugging Face folder and as a full-width GGUF.

Needs numpy and gguf only, so that the environment with llama.cpp (see ``make_peer.py``) makes the same models. Names and
the order of q and k rows are restated here by plain loops, independent of ``herdbook.quantize.layout``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

METHODS = {"Q8_0": 7, "Q6_K": 18, "Q5_K_M": 17, "Q5_K_S": 16, "Q4_K_M": 15, "Q4_K_S": 14, "Q3_K_M": 12}
# Q6_K and Q5_K_S have no rules of their own
FEWER = ("Q8_0", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M")


@dataclass(frozen=True)
class Small:
    """A small model; ``why`` says which rules it reaches."""

    why: str
    layers: int
    hidden: int = 256
    ffn: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 0
    tied: bool = False
    dtype: str = "BF16"
    methods: tuple[str, ...] = tuple(METHODS)
    vocabulary: int = 320
    seed: int = 0

    @property
    def architecture(self) -> str:
        if self.experts:
            return "MixtralForCausalLM"
        return "LlamaForCausalLM" if self.tied else "MistralForCausalLM"


MODELS = {
    "dense": Small("tied; layers enough that an eighth of them is one", layers=8, tied=True, seed=1),
    "narrow": Small(
        "rows that are no multiple of 256",
        layers=9,
        hidden=192,
        ffn=320,
        kv_heads=1,
        head_dim=48,
        dtype="F16",
    ),
    "odd": Small(
        "rows that are no multiple of 32", layers=2, hidden=48, ffn=80, head_dim=12, dtype="F32", seed=2
    ),
    "four": Small("four experts, tied", layers=8, experts=4, tied=True, methods=FEWER[2:], seed=3),
    "eight": Small(
        "the number of experts that llama.cpp treats apart", layers=3, experts=8, methods=FEWER, seed=4
    ),
    "tall": Small(
        "80 layers and shared value heads: llama.cpp's 70B",
        layers=80,
        ffn=32,
        kv_heads=1,
        head_dim=16,
        methods=("Q4_K_M", "Q3_K_M"),
    ),
}

# The types that llama.cpp chooses for these are in ``types.json``: as few rows as the rules need.
_THIN = {"ffn": 256, "head_dim": 32, "heads": 8, "vocabulary": 32}
MIXTURES = {
    "tied": Small("tied; three query heads share a value head", layers=9, kv_heads=2, hidden=256, ffn=256, heads=6, head_dim=128, tied=True, vocabulary=32),
    "grouped": Small("four query heads share a value head", layers=17, kv_heads=2, **_THIN),
    "two": Small("two experts", layers=1, kv_heads=4, experts=2, **_THIN),
    "four": Small("four experts", layers=9, kv_heads=4, experts=4, **_THIN),
    "eight": Small("eight experts", layers=9, kv_heads=2, experts=8, **_THIN),
    "narrow": Small("rows of 320 and 96", layers=2, hidden=96, ffn=320, heads=2, kv_heads=1, head_dim=48, vocabulary=32),
}  # fmt: skip
ENCODED = ("two", "narrow")
# LLAMA_FTYPE_* of llama.cpp's llama.h
ALL_METHODS = METHODS | {
    "F32": 0, "F16": 1, "BF16": 32, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_L": 13,
    "IQ2_XXS": 19, "IQ2_XS": 20, "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26,
    "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29, "IQ4_XS": 30, "IQ1_M": 31, "TQ1_0": 36, "TQ2_0": 37, "MXFP4_MOE": 38,
}  # fmt: skip
NEED_MATRIX = {"IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S", "IQ2_S", "IQ2_M", "IQ1_M"}
# Whole files of these are in ``imatrix.json``.
MATRIX_METHODS = ("IQ1_S", "IQ2_XXS", "IQ2_M", "IQ3_XXS", "Q2_K_S", "Q4_K_M", "IQ4_XS")
# By a label: a method, and what is chosen in place of its rules.
CHOSEN: dict[str, tuple[str, dict]] = {
    "Q4_K_L": ("Q4_K_M", {"output": "Q8_0", "embeddings": "Q8_0"}),
    "output": ("Q4_K_M", {"output": "F16"}),
    "embeddings": ("Q5_K_S", {"embeddings": "Q4_0"}),
    "patterns": (
        "Q4_K_M",
        {"types": {"attn_(k|v)": "Q8_0", r"ffn_down.*\.weight": "Q6_K", r"blk\.1\.": "F16"}},
    ),
    "both": ("Q3_K_M", {"types": {"token_embd|output": "Q5_1"}, "embeddings": "Q8_0"}),
}


def names(small: Small) -> dict[str, tuple[int, ...]]:
    """Return the safetensors tensors of a model and their shapes."""
    hidden, ffn = small.hidden, small.ffn
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (small.vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not small.tied:
        shapes["lm_head.weight"] = (small.vocabulary, hidden)
    for layer in range(small.layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.self_attn.q_proj.weight"] = (small.heads * small.head_dim, hidden)
        shapes[f"{prefix}.self_attn.k_proj.weight"] = (small.kv_heads * small.head_dim, hidden)
        shapes[f"{prefix}.self_attn.v_proj.weight"] = (small.kv_heads * small.head_dim, hidden)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (hidden, small.heads * small.head_dim)
        if small.experts:
            shapes[f"{prefix}.block_sparse_moe.gate.weight"] = (small.experts, hidden)
            for expert in range(small.experts):
                for name, shape in (("w1", (ffn, hidden)), ("w2", (hidden, ffn)), ("w3", (ffn, hidden))):
                    shapes[f"{prefix}.block_sparse_moe.experts.{expert}.{name}.weight"] = shape
        else:
            for name, shape in (("gate", (ffn, hidden)), ("down", (hidden, ffn)), ("up", (ffn, hidden))):
                shapes[f"{prefix}.mlp.{name}_proj.weight"] = shape
    return shapes


@lru_cache(maxsize=1)  # a folder and a GGUF are made of each, one after the other
def weights(small: Small) -> dict[str, np.ndarray]:
    """Make the weights, float32 with values that the model's dtype holds exactly.

    Only the raw stream of PCG64 is used, which numpy promises never to change; four 16-bit numbers are summed, so that
    values crowd around zero as weights do.
    """
    stream = np.random.PCG64(small.seed)
    made = {}
    for name, shape in names(small).items():
        raw = stream.random_raw(int(np.prod(shape))).view("<u2").reshape(-1, 4)
        values = (raw.T.astype(np.int64).sum(axis=0) - 2 * 65535).astype(np.float32) / np.float32(2**20)
        if "norm" in name:
            values = values + np.float32(1)
        made[name] = rounded(values.reshape(shape), small.dtype)
    return made


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":  # cut off, which is as good as rounding here
        return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return values.astype(np.float16).astype(np.float32) if dtype == "F16" else values


def encoded(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "F16" else "<f4").tobytes()


def config(small: Small) -> dict:
    """Return the model's ``config.json``."""
    moe = {"num_local_experts": small.experts, "num_experts_per_tok": 2, "model_type": "mixtral"}
    return {
        "architectures": [small.architecture],
        "model_type": "llama" if small.tied else "mistral",
        "vocab_size": small.vocabulary,
        "hidden_size": small.hidden,
        "intermediate_size": small.ffn,
        "num_hidden_layers": small.layers,
        "num_attention_heads": small.heads,
        "num_key_value_heads": small.kv_heads,
        "head_dim": small.head_dim,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": small.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **(moe if small.experts else {}),
    }


def write_folder(small: Small, folder: Path) -> None:
    """Write the Hugging Face folder: two shards with names of their own, an index, the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    made = weights(small)
    shards: dict[str, dict[str, np.ndarray]] = {"zebra.safetensors": {}, "aardvark.safetensors": {}}
    for number, (name, values) in enumerate(made.items()):
        shards[list(shards)[number % 2]][name] = values
    weight_map = {}
    for shard, tensors in shards.items():
        header, data = {"__metadata__": {"format": "pt"}}, bytearray()
        for name, values in tensors.items():
            piece = encoded(values, small.dtype)
            offsets = [len(data), len(data) + len(piece)]
            header[name] = {"dtype": small.dtype, "shape": list(values.shape), "data_offsets": offsets}
            data += piece
            weight_map[name] = shard
        head = json.dumps(header).encode()
        (folder / shard).write_bytes(len(head).to_bytes(8, "little") + head + data)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config(small)), encoding="utf-8")


def side_by_side(values: np.ndarray, heads: int) -> np.ndarray:
    """Put row i of each head's first half beside row i of its second half."""
    half = len(values) // heads // 2
    rows = []
    for head in range(heads):
        for i in range(half):
            rows += [values[2 * half * head + i], values[2 * half * head + half + i]]
    return np.stack(rows)


def gguf_tensors(small: Small) -> dict[str, np.ndarray]:
    """Return the GGUF's tensors as float32, in the order of a converter that goes layer by layer."""
    made = weights(small)
    tensors = {"token_embd.weight": made["model.embed_tokens.weight"]}
    for layer in range(small.layers):
        ours, theirs = f"blk.{layer}", f"model.layers.{layer}"
        attention = f"{theirs}.self_attn"
        tensors[f"{ours}.attn_norm.weight"] = made[f"{theirs}.input_layernorm.weight"]
        tensors[f"{ours}.attn_q.weight"] = side_by_side(made[f"{attention}.q_proj.weight"], small.heads)
        tensors[f"{ours}.attn_k.weight"] = side_by_side(made[f"{attention}.k_proj.weight"], small.kv_heads)
        tensors[f"{ours}.attn_v.weight"] = made[f"{attention}.v_proj.weight"]
        tensors[f"{ours}.attn_output.weight"] = made[f"{attention}.o_proj.weight"]
        tensors[f"{ours}.ffn_norm.weight"] = made[f"{theirs}.post_attention_layernorm.weight"]
        if small.experts:
            moe = f"{theirs}.block_sparse_moe"
            tensors[f"{ours}.ffn_gate_inp.weight"] = made[f"{moe}.gate.weight"]
            for name, theirs_name in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
                stack = [
                    made[f"{moe}.experts.{expert}.{theirs_name}.weight"] for expert in range(small.experts)
                ]
                tensors[f"{ours}.ffn_{name}_exps.weight"] = np.stack(stack)
        else:
            for name in ("gate", "up", "down"):
                tensors[f"{ours}.ffn_{name}.weight"] = made[f"{theirs}.mlp.{name}_proj.weight"]
    tensors["output_norm.weight"] = made["model.norm.weight"]
    if not small.tied:
        tensors["output.weight"] = made["lm_head.weight"]
    return tensors


def write_gguf(small: Small, path: Path) -> None:
    """Write the full-width GGUF, as the converter would but without a tokenizer."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("Small")
    writer.add_block_count(small.layers)
    writer.add_context_length(512)
    writer.add_embedding_length(small.hidden)
    writer.add_feed_forward_length(small.ffn)
    writer.add_head_count(small.heads)
    writer.add_head_count_kv(small.kv_heads)
    writer.add_key_length(small.head_dim)
    writer.add_value_length(small.head_dim)
    writer.add_rope_dimension_count(small.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if small.experts:
        writer.add_expert_count(small.experts)
        writer.add_expert_used_count(2)
    writer.add_file_type({"F32": 0, "F16": 1, "BF16": 32}[small.dtype])
    writer.add_quantization_version(2)
    writer.add_vocab_size(small.vocabulary)
    # lists of both kinds, which the header's reader must step over
    writer.add_array("tokenizer.ggml.tokens", [f"<{number}>" for number in range(small.vocabulary)])
    writer.add_array("tokenizer.ggml.token_type", [1] * small.vocabulary)
    for name, values in gguf_tensors(small).items():
        full = values.ndim == 1 or "ffn_gate_inp" in name or small.dtype == "F32"
        kind = gguf.GGMLQuantizationType["F32" if full else small.dtype]
        data = np.frombuffer(encoded(values, kind.name), np.uint8).reshape(*values.shape[:-1], -1)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def matrix_inputs(full: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return an importance matrix of a GGUF: by tensor, the sums of its inputs' squares and their number for each expert.

    No token reached the last expert.
    """
    stream = np.random.PCG64(9)
    made = {}
    for tensor in gguf.GGUFReader(full).tensors:
        name = str(tensor.name)
        if not name.startswith("blk.") or "norm" in name or "gate_inp" in name:
            continue
        experts = int(tensor.shape[2]) if len(tensor.shape) > 2 else 1
        raw = stream.random_raw(int(tensor.shape[0]) * experts) >> 40
        counts = np.full(experts, 48, np.float32)
        sums = (raw.astype(np.float32) / np.float32(2**20)).reshape(experts, -1)
        if experts > 1:
            sums[-1], counts[-1] = 0, 0
        made[name] = (sums, counts)
    return dict(sorted(made.items()))
