"""Models that llama.cpp's converter refuses, or turns into a GGUF that computes something else or does not load."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from support import buttercup, tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START = "quantize: 'base' cannot be converted to GGUF: "
TOKENIZER = "quantize: 'base' cannot be converted to GGUF with the tokenizer of 'base': "


def quantized(
    *,
    without: tuple[str, ...] = (),
    methods: tuple[Any, ...] = ("Q8_0",),
    split: str | None = None,
    imatrix: dict[str, Any] | None = None,
    **changes: Any,
) -> Callable[[Path], Path]:
    """Return a maker of a quantized model with a changed configuration, or without some files."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1, **changes)
        for name in without:
            (folder / "base" / name).unlink()
        models = {"base": {"folder": "base"}}
        more = {key: value for key, value in (("split", split), ("imatrix", imatrix)) if value}
        section = {"methods": list(methods), **more}
        return tiny.write_recipe(folder / "recipe.yaml", models, quantize=section)

    return make


def weighted(
    *, layers: int = 2, columns: int = 32, value: float = 1.0, content: bytes = b""
) -> Callable[[Path], Path]:
    """Return a maker of a quantized model with a given importance matrix, as another program writes it."""

    def make(folder: Path) -> Path:
        import gguf
        import numpy as np

        writer = gguf.GGUFWriter(str(folder / "m.gguf"), "")
        writer.add_type("imatrix")
        for layer in range(layers):
            for name in ("attn_k", "attn_q", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
                width = 64 if name == "ffn_down" else columns
                writer.add_tensor(
                    f"blk.{layer}.{name}.weight.in_sum2", np.full((1, width), value, np.float32)
                )
                writer.add_tensor(f"blk.{layer}.{name}.weight.counts", np.full((1, 1), 99, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if content:
            (folder / "m.gguf").write_bytes(content)
        return quantized(methods=("IQ4_NL",), imatrix={"file": "m.gguf"})(folder)

    return make


def mixture(folder: Path) -> Path:
    """Write a mixture of the family of Qwen2, which is quantized."""
    tiny.write_model(folder / "base", seed=1, model_type="qwen2")
    experts = [{"model": "base"}, {"model": "base"}, {"model": "base"}]
    moe = {"base": "base", "gate": "random", "experts": experts, "shared_experts": [{"model": "base"}]}
    models = {"base": {"folder": "base"}, "mix": {"moe": moe}}
    return tiny.write_recipe(folder / "recipe.yaml", models, quantize={"methods": ["Q8_0"]})


def with_tokenizer(write: Callable[[Path], None]) -> Callable[[Path], Path]:
    """Return a maker of a quantized model of 520 tokens whose tokenizer is written by a function."""

    def make(folder: Path) -> Path:
        recipe = quantized(vocab=520)(folder)
        (folder / "base/tokenizer.json").unlink()
        write(folder / "base")
        return recipe

    return make


def fewer(folder: Path) -> None:
    """Write a tokenizer of SentencePiece with 512 tokens, as JSON alone."""
    buttercup.write_tokenizer(folder, [f"{number} sires and dams" for number in range(2000)])
    (folder / "tokenizer.model").unlink()


def with_second_head(folder: Path) -> Path:
    """Write a quantized model whose embeddings are tied, with an equal output head beside them."""
    recipe = quantized(tie_word_embeddings=True)(folder)
    path = folder / "base/model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    return recipe


FACTORS = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
SCALED: dict[str, dict[str, Any]] = {
    "dynamic": {"factor": 2.0},
    "longrope": {"factor": 2.0, **FACTORS},
}
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
CASES = [
    Case(
        "`quantize` of another architecture",
        quantized(model_type="helium", architectures=["HeliumForCausalLM"]),
        f"{START}the architecture HeliumForCausalLM is not supported",
    ),
    Case(
        "`quantize` of a mixture whose routers llama.cpp computes otherwise",
        mixture,
        "quantize: 'mix' cannot be converted to GGUF: llama.cpp computes as if norm_topk_prob were False, and config.json has True",
    ),
    Case(
        "`quantize` by a method that needs an importance matrix",
        quantized(hidden=256, intermediate=256, methods=("Q8_0", "IQ2_XS")),
        "quantize.methods.1: IQ2_XS needs an importance matrix, without which IQ2_XS would be useless",
    ),
    Case(
        "`quantize` with an importance matrix of another model",
        weighted(columns=16),
        "m.gguf: is the importance matrix of another model: blk.0.attn_q.weight has 1 x 16 columns there",
    ),
    Case(
        "`quantize` with an importance matrix of fewer layers",
        weighted(layers=1),
        "m.gguf: is the importance matrix of another model: it lacks blk.1.attn_q.weight",
    ),
    Case(
        "`quantize` with an importance matrix that contains NaN",
        weighted(value=math.nan),
        "m.gguf: blk.0.attn_k.weight: has values that are infinite, negative or not a number",
    ),
    Case(
        "`quantize` with a file that is no importance matrix",
        weighted(content=b"words"),
        "m.gguf: is no importance matrix: neither a GGUF nor of the older form",
    ),
    Case(
        "`quantize` with a budget below the narrowest types",
        quantized(hidden=256, intermediate=256, methods=({"bpw": 2.5},)),
        "quantize.methods.0.bpw: with the narrowest types, the file has 2.671 bits per weight",
    ),
    Case(
        "`quantize` with a budget in parts",
        quantized(methods=({"bpw": 5},), split="1GB"),
        "quantize: split: the sizes of the tensors of a file with `bpw` are known after it is made only",
    ),
    Case(
        "`quantize` with an importance matrix from a text that is not in `calibration`",
        quantized(imatrix={"texts": ["general"]}),
        "quantize.imatrix.texts.0: no calibration is named 'general'",
    ),
    Case(
        "`quantize` with an output matrix of a type that needs an importance matrix",
        quantized(hidden=256, methods=({"method": "Q4_K_M", "name": "mine", "output": "IQ2_XS"},)),
        "quantize.methods.0: output.weight cannot be IQ2_XS, since ggml ends without an importance matrix",
    ),
    Case(
        "`quantize` with a type for no tensor",
        quantized(methods=({"method": "Q8_0", "name": "mine", "types": {"attn_qkv": "F16"}},)),
        "quantize.methods.0.types: no tensor that is quantized fits 'attn_qkv'",
    ),
    Case(
        "`quantize` with types of its own under the name of a method",
        quantized(methods=({"method": "Q4_K_M", "output": "Q8_0"},)),
        "quantize.methods.0: a file with types of its own needs a `name` that is not a method's",
    ),
    Case(
        "`quantize` of a model with another activation",
        quantized(hidden_act="gelu"),
        f"{START}llama.cpp computes silu in place of the activation gelu",
    ),
    *(
        Case(
            f"`quantize` of a model with rotary embeddings of type `{kind}`",
            quantized(rope_scaling={name: kind, **SCALED[kind]}),
            f"{START}rotary embeddings with rope_type {kind} are not supported",
        )
        for kind, name in (("dynamic", "type"), ("longrope", "rope_type"))
    ),
    Case(
        "`quantize` of a Phi-3 whose LongRoPE multiplies by another factor than llama.cpp's",
        quantized(
            model_type="phi3",
            original_max_position_embeddings=64,
            rope_scaling={"type": "longrope", **FACTORS, "attention_factor": 2.0},
        ),
        f"{START}llama.cpp computes as if attention_factor of the rotary embeddings were 1.08012, and config.json has 2.0",
    ),
    Case(
        "`quantize` of a model with YaRN and a setting that is not converted",
        quantized(rope_scaling={**YARN, "mscale_all_dim": 0.7}),
        f"{START}rotary embeddings with rope_type yarn and mscale_all_dim are not supported",
    ),
    Case(
        "`quantize` of a model with YaRN that lacks its original length",
        quantized(rope_scaling={"rope_type": "yarn", "factor": 2.0}),
        f"{START}rotary embeddings with rope_type yarn need original_max_position_embeddings",
    ),
    Case(
        "`quantize` of a model without a tokenizer",
        quantized(without=("tokenizer.json",)),
        "quantize: 'base' has no tokenizer (tokenizer.json or tokenizer.model)",
    ),
    Case(
        "`quantize` of a model with tied embeddings and an output head nevertheless",
        with_second_head,
        f"{START}its embeddings are tied, and llama.cpp would still use lm_head.weight",
    ),
    Case(
        "`quantize` of a model whose tokenizer splits text in a way that llama.cpp does not support",
        quantized(),
        f"{TOKENIZER}its way to split text (pre-tokenizer) is not one that llama.cpp supports",
    ),
    Case(
        "`quantize` of a model whose `tokenizer.model` is tiktoken's",
        with_tokenizer(tiny.write_tiktoken),
        f"{TOKENIZER}llama.cpp's converter fails with RuntimeError: INTERNAL: could not parse ModelProto from tokenizer.model",
        slow=True,
    ),
    Case(
        "`quantize` of a model with more rows of embeddings than tokens, which the converter does not fill up",
        with_tokenizer(fewer),
        f"{TOKENIZER}the tokenizer has 512 tokens for 520 rows of embeddings",
        slow=True,
    ),
]
