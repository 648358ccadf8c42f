"""Write ``peer.safetensors``: matrices, and what llm-compressor makes of them in each scheme.

Run in an environment of its own, where ``llmcompressor==0.14.0.1`` (with ``compressed-tensors==0.19.0``) and ``torch==2.13.0`` are:

    python tests/data/compress/make_peer.py

Each matrix is the one linear layer of a model. ``peer.json`` gets what is written into ``config.json``.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

SCHEMES = ("FP8_DYNAMIC", "W4A16")
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
MATRIX = "model.layers.0.mlp.up_proj"
ROWS, COLUMNS = 32, 256


def matrix() -> torch.Tensor:
    """Return a matrix with rows of all kinds: spread, with outliers, zero, tiny, signed zeros, halfway between numbers."""
    drawn = torch.Generator().manual_seed(7)
    values = torch.randn(ROWS, COLUMNS, generator=drawn) * 0.05
    values[1, 5] = 12.0
    values[2] = 0.0
    values[3] *= 1e-6
    values[4, ::2] = -0.0
    values[5, :128] = 0.0  # half of the groups of a row
    # halfway between the numbers that are encoded, if the largest is 7.5 or 448 times a power of two
    values[6] = torch.arange(COLUMNS) % 16 - 7.5
    values[7] = (torch.arange(COLUMNS) % 64 + 0.5) * 7
    values[8] = torch.linspace(-1, 1, COLUMNS)
    values[9] = values[9].abs() * 300
    return values


def main() -> None:
    """Write both files."""
    here, tensors, settings = Path(__file__).parent, {}, {}
    for short, dtype in DTYPES.items():
        weight = matrix().to(dtype)
        tensors[f"{short}.matrix"] = weight
        for scheme in SCHEMES:
            config = LlamaConfig(
                vocab_size=16,
                hidden_size=COLUMNS,
                intermediate_size=ROWS,
                num_hidden_layers=1,
                num_attention_heads=8,
                num_key_value_heads=8,
            )
            model = LlamaForCausalLM(config).to(dtype)
            with torch.no_grad():
                model.get_submodule(MATRIX).weight.copy_(weight)
            ignore = ["lm_head", r"re:.*self_attn.*", r"re:.*(gate|down)_proj$"]
            with tempfile.TemporaryDirectory() as root:
                source, output = Path(root) / "source", Path(root) / "output"
                model.save_pretrained(source)  # it copies files of the folder that a model comes from
                model = LlamaForCausalLM.from_pretrained(source, dtype=dtype)
                modifier = QuantizationModifier(targets="Linear", scheme=scheme, ignore=ignore)
                oneshot(model=model, recipe=modifier)
                model.save_pretrained(output, save_compressed=True)
                made = load_file(output / "model.safetensors")
                written = json.loads((output / "config.json").read_text(encoding="utf-8"))
            settings[scheme] = written["quantization_config"]
            for name, tensor in made.items():
                if name.startswith(f"{MATRIX}."):
                    tensors[f"{short}.{scheme}{name.removeprefix(MATRIX)}"] = tensor.contiguous()
    versions = {name: version(name) for name in ("llmcompressor", "compressed-tensors", "torch")}
    save_file(tensors, here / "peer.safetensors", metadata=versions)
    text = json.dumps({"versions": versions, "settings": settings}, indent=2, sort_keys=True)
    (here / "peer.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
