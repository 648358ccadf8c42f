"""The small models of each family that becomes GGUF, as files that llama.cpp reads, and the logits that they should have."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from unittest import mock

import gguf
import torch
from safetensors.torch import load_file

from herdbook.steps.evaluate.llama_runtime import Runtime
from herdbook.steps.quantize.convert import _add_derived
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.source import tensors_of
from herdbook.weights.gguf_file import read_gguf
from support.quantized import quantize_folder

DATA = Path(__file__).parents[1] / "data" / "quantize"
PEER = json.loads((DATA / "families.json").read_text(encoding="utf-8"))
FACTOR = "phi3.rope.scaling.attn_factor"


def load(name):
    """Load a module of the tests' data."""
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


load("small_models")
families = load("families")
LLAMA3 = families.LLAMA3


def write_header(path, name, more=None):
    """Write the hyperparameters that the converter wrote, without a tokenizer."""
    peer = PEER[name]
    writer = gguf.GGUFWriter(str(path), peer["architecture"])
    for key, (kind, value) in {**peer["fields"], **(more or {})}.items():
        writer.add_key_value(key, value, gguf.GGUFValueType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return read_gguf(path)


def with_derived(header, folder):
    """Add to a header what the converter writes with the tensors only, and `convert` by itself."""
    model = read_folder(folder)
    if names := [name for name, part in tensors_of(model).items() if not part.sources]:
        header.metadata.pop(FACTOR, None)
        _add_derived(header, model.config, names)


def write_file(root, name, method="F32", **changes):
    """Write a family's folder and its GGUF, without words; return both. ``changes`` go into its ``config.json``."""
    folder, head, path = root / "model", root / "head.gguf", root / "made.gguf"
    families.write_folder(name, folder)
    config = families.config(name) | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    size = f"{PEER[name]['architecture']}.vocab_size"
    more = {"tokenizer.ggml.model": ("STRING", "none"), size: ("UINT32", config["vocab_size"])}
    if "num_experts_per_tok" in changes:
        used = f"{PEER[name]['architecture']}.expert_used_count"
        more[used] = ("UINT32", changes["num_experts_per_tok"])
    with_derived(write_header(head, name, more), folder)
    quantize_folder(folder, head, path, method)
    return folder, path


def logits(folder, tokens):
    """Return a model's logits after each of some tokens, in float32: transformers', or a plain computation's."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] == "deepseek":
        return plain_deepseek(config, load_file(folder / "model.safetensors"), tokens)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def plain_deepseek(config, tensors, tokens, see=lambda *_: None):
    """Compute a mixture of DeepSeek's kind as its family is defined: Llama's attention; weights of chosen experts divided by their sum.

    ``see`` is called with each matrix's name and input.
    """
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    width, count = config["hidden_size"] // heads, len(tokens)

    def normed(x, name):
        return x / (x.square().mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt() * weights[name]

    def linear(x, name):
        see(f"{name}.weight", x.reshape(-1, x.shape[-1]))
        bias = weights.get(f"{name}.bias")
        product = x @ weights[f"{name}.weight"].T
        return product if bias is None else product + bias

    def mlp(x, name):
        gate = linear(x, f"{name}.gate_proj")
        return linear(gate * torch.sigmoid(gate) * linear(x, f"{name}.up_proj"), f"{name}.down_proj")

    angles = torch.arange(count).double()[:, None] * _frequencies(config, width)[None]

    def turned(x):  # (count, heads, width)
        one, two = x[..., : width // 2], x[..., width // 2 :]
        sine, cosine = angles.sin()[:, None], angles.cos()[:, None]
        return torch.cat([one * cosine - two * sine, two * cosine + one * sine], -1)

    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        y = normed(x, f"{prefix}.input_layernorm.weight")
        q = turned(linear(y, f"{prefix}.self_attn.q_proj").reshape(count, heads, width))
        k = turned(linear(y, f"{prefix}.self_attn.k_proj").reshape(count, groups, width))
        v = linear(y, f"{prefix}.self_attn.v_proj").reshape(count, groups, width)
        mixed = []
        for head in range(heads):
            group = head // (heads // groups)
            scores = q[:, head] @ k[:, group].T / math.sqrt(width)
            scores = scores.masked_fill(torch.ones(count, count).triu(1).bool(), -math.inf)
            mixed.append(scores.softmax(-1) @ v[:, group])
        x = x + linear(torch.cat(mixed, -1), f"{prefix}.self_attn.o_proj")
        y = normed(x, f"{prefix}.post_attention_layernorm.weight")
        shares = linear(y, f"{prefix}.mlp.gate").softmax(-1)
        rows = []
        for token in range(count):
            chosen = shares[token].sort(descending=True).indices[: config["num_experts_per_tok"]].tolist()
            total = sum(shares[token, expert] for expert in chosen)
            parts = [
                shares[token, expert] / total * mlp(y[token], f"{prefix}.mlp.experts.{expert}")
                for expert in chosen
            ]
            rows.append(sum(parts))
        x = x + torch.stack(rows)
        if config.get("n_shared_experts"):
            x = x + mlp(y, f"{prefix}.mlp.shared_experts")
    return linear(normed(x, "model.norm.weight"), "lm_head").float().numpy()


def _frequencies(config, width):
    """Return the frequencies of rotary embeddings, with Llama 3's scaling by transformers."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if config.get("rope_scaling"):
        kept = {
            key: config[key] for key in ("hidden_size", "num_attention_heads", "rope_theta", "rope_scaling")
        }
        return ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(**kept), "cpu")[0].double()
    return torch.tensor([config["rope_theta"] ** (-index / width) for index in range(0, width, 2)]).double()


def computed(path, tokens, context=0):
    """Return the logits that llama.cpp computes after each of some tokens, with a context of so many tokens.

    Keys and values are kept in float32, not in float16 as usual, so that differences show what is computed and not what is rounded.
    """
    from llama_cpp import llama_cpp as library

    room = library.llama_context_default_params()
    room.type_k = room.type_v = gguf.GGMLQuantizationType.F32
    room.flash_attn_type = 0
    with mock.patch.object(library, "llama_context_default_params", return_value=room):
        runtime = Runtime(path, max(context, len(tokens)), 1)
    try:
        return runtime.logits(tokens)
    finally:
        runtime.close()


def distance(ours, theirs):
    """Return the largest difference of logits, as a share of the largest logit."""
    return float(abs(ours - theirs).max() / abs(theirs).max())


TOKENS = [(7 * number * number + 3 * number) % families.VOCABULARY for number in range(400)]
LONG = ("phi3-long", "phi4-mini")
_ALL = {"num_experts_per_tok": families.EXPERTS, "norm_topk_prob": True}
# What is compared: a family, the number of tokens, and changes of config.json.
RUNS = [
    *((name, 40, {}) for name in families.CONFIGS),
    *((name, length, {}) for name in LONG for length in (200, 300)),
    ("gemma3-scaled", 300, {}),
    *((name, 40, {"rope_scaling": LLAMA3}) for name in ("deepseek", "deepseek-shared", "granite")),
    *((name, 40, _ALL) for name in ("qwen2_moe", "qwen3_moe")),
]
