"""Sources whose configuration, index and tensors do not describe one whole model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Tensors = dict[str, torch.Tensor]

INDEX = "model.safetensors.index.json"
UP = "model.layers.0.mlp.up_proj.weight"


def source(
    change: Callable[[Path], Any], *, reduced: bool = False, **settings: Any
) -> Callable[[Path], Path]:
    """Return a maker of a source that is changed after it was written, and is released as it is or lasered."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1, **settings)
        change(folder / "base")
        models: dict[str, Any] = {"base": {"folder": "base"}}
        if reduced:
            models["cut"] = {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]}
        return tiny.write_recipe(folder / "recipe.yaml", models)

    return make


def tensors(edit: Callable[[Tensors], Any]) -> Callable[[Path], None]:
    """Return a change of the tensors of a source with one file."""

    def change(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        edit(held)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def without_prefix(held: Tensors) -> None:
    for name in [name for name in held if name.startswith("model.")]:
        held[name.removeprefix("model.")] = held.pop(name)


def from_its_shard(folder: Path) -> None:
    """Remove a tensor from its file, but not from the index."""
    file = json.loads((folder / INDEX).read_text())["weight_map"][UP]
    held = load_file(folder / file)
    del held[UP]
    save_file(held, folder / file, metadata={"format": "pt"})


def into_another_shard(folder: Path) -> None:
    """Add a tensor to a second file."""
    file = json.loads((folder / INDEX).read_text())["weight_map"][UP]
    other = next(path for path in sorted(folder.glob("*.safetensors")) if path.name != file)
    held = load_file(other)
    held[UP] = torch.zeros_like(load_file(folder / file)[UP])
    save_file(held, other, metadata={"format": "pt"})


def replace(held: Tensors, name: str, dtype: torch.dtype) -> None:
    held[f"model.layers.0.mlp.up_proj.{name}"] = held.pop(UP).to(dtype)


def both(folder: Path) -> None:
    file = json.loads((folder / INDEX).read_text())["weight_map"][UP]
    (folder / "model.safetensors").write_bytes((folder / file).read_bytes())


def from_the_index(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"][UP]
    (folder / INDEX).write_text(json.dumps(index))


def config(**changes: Any) -> Callable[[Path], None]:
    """Return a change of a source's configuration; None removes a key."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text()) | changes
        content = {key: value for key, value in content.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(content))

    return change


CASES = [
    Case(
        "an index that names a tensor which no file contains",
        source(from_its_shard, shards=2),
        f"for tensor {UP}, which is in none of the weights files",
    ),
    Case(
        "a tensor in two files",
        source(into_another_shard, shards=2),
        f"folder: base: tensor {UP} is in both model-0000",
    ),
    Case(
        "a tensor that the index does not name",
        source(from_the_index, shards=2),
        f"folder: base: tensor {UP} of model-0000",
    ),
    *(
        Case(
            f"a source without `{name}`",
            source(tensors(lambda held, name=name: held.pop(name)), reduced=True),
            f"models.base: its config.json implies the tensor {name}, which it lacks",
        )
        for name in ("model.norm.weight", "model.layers.1.self_attn.k_proj.weight", "lm_head.weight")
    ),
    Case(
        "names without the prefix `model.`",
        source(tensors(without_prefix), reduced=True),
        "models.base: its tensors lack the prefix 'model.'",
    ),
    Case(
        "position ids and other tensors that the configuration does not imply",
        source(tensors(lambda held: held.update({"model.position_ids": torch.arange(4)}))),
        "models.base: it has the tensor model.position_ids, which its config.json does not imply",
    ),
    Case(
        "more layers in the configuration than in the weights",
        source(config(num_hidden_layers=3)),
        "models.base: its config.json implies the tensor model.layers.2.",
    ),
    Case(
        "fewer layers in the configuration than in the weights",
        source(config(num_hidden_layers=1)),
        "models.base: it has the tensor model.layers.1.",
    ),
    Case(
        "matrices of other shapes than the configuration implies",
        source(config(num_key_value_heads=4)),
        "models.base: model.layers.0.self_attn.k_proj.weight has shape [16, 32]",
    ),
    Case(
        "a window of fewer tokens than none",
        source(config(model_type="mistral", sliding_window=-5)),
        "folder: base: config.json: sliding_window: must be at least 0 (found -5)",
    ),
    Case(
        "attention to the tokens that follow",
        source(config(is_causal=False)),
        "folder: base: config.json has is_causal False, so that a token sees those that follow it",
    ),
    Case(
        "heads that are not a multiple of the key and value heads, so that no token can be computed",
        source(config(num_key_value_heads=3)),
        "folder: base: config.json has 4 heads, which is not a multiple of its 3 key and value heads",
    ),
    Case(
        "heads of an odd width",
        source(config(head_dim=7)),
        "folder: base: config.json has heads of width 7, which rotary embeddings cannot turn in pairs",
    ),
    Case(
        "a mixture with more experts for each token than it has",
        source(config(model_type="mixtral", num_local_experts=2, num_experts_per_tok=3)),
        "folder: base: config.json has num_experts_per_tok 3, and 2 experts",
    ),
    Case(
        "a model of text and sound (`text_config`)",
        source(config(text_config={"num_hidden_layers": 2}, num_hidden_layers=None)),
        "folder: base: config.json has a text_config",
    ),
    Case(
        "a configuration without `num_hidden_layers`",
        source(config(num_hidden_layers=None, n_layer=2)),
        "folder: base: config.json of type 'llama' has no number num_hidden_layers",
    ),
    *(
        Case(
            f"weights quantized by {method}",
            source(config(quantization_config={"quant_method": method})),
            f"folder: base: its weights are quantized (config.json: quantization_config, {method})",
        )
        for method in ("gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors")
    ),
    Case(
        "an empty `quantization_config`",
        source(config(quantization_config={})),
        "folder: base: its weights are quantized (config.json: quantization_config)",
    ),
    *(
        Case(
            f"a tensor of {method} in a source whose configuration does not mention it",
            source(tensors(lambda held, name=name, dtype=dtype: replace(held, name, dtype)), reduced=True),
            f"folder: base: its weights are quantized (tensor model.layers.0.mlp.up_proj.{name} of dtype {code})",
        )
        for method, name, dtype, code in (
            ("GPTQ or AWQ", "qweight", torch.int32, "I32"),
            ("bitsandbytes", "weight", torch.int8, "I8"),
            ("FP8", "weight", torch.float8_e4m3fn, "F8_E4M3"),
            ("compressed-tensors", "weight_scale", torch.float32, "F32"),
        )
    ),
    Case(
        "shards without an index",
        source(lambda folder: (folder / INDEX).unlink(), shards=2),
        f"folder: base: contains shards (model-00001-of-00002.safetensors) without {INDEX}",
    ),
    Case(
        "both `model.safetensors` and an index that names other files",
        source(both, shards=2),
        f"folder: base: contains both model.safetensors, which transformers loads, and {INDEX}",
    ),
    Case(
        "a width that is not a number",
        source(config(intermediate_size="64")),
        "folder: base: config.json: intermediate_size: expected a whole number (found '64')",
    ),
    Case(
        "a model type that transformers does not have either",
        source(config(model_type="of next year")),
        "models.base: transformers has no language model of type 'of next year'",
    ),
    *(
        Case(
            f"`{named}` in `architectures` of a {kind}",
            source(config(architectures=[named]), model_type=kind),
            f"models.base: its config.json has architectures ['{named}'], and {expected} is the language model of its model_type "
            f"'{kind}'",
        )
        for kind, named, expected in (
            ("llama", "MistralForCausalLM", "LlamaForCausalLM"),
            ("llama", "LlamaForSequenceClassification", "LlamaForCausalLM"),
            ("gemma2", "Gemma2ForSequenceClassification", "Gemma2ForCausalLM"),
        )
    ),
    Case(
        "a type that is loaded by transformers, without one of its tensors",
        source(tensors(lambda held: held.pop(UP)), model_type="olmo", reduced=True),
        f"models.base: its config.json implies the tensor {UP}, which it lacks",
    ),
    *(
        Case(
            f"`{key}` in `config.json` that is not {form}",
            source(config(**{key: value})),
            f"folder: base: config.json: {key}: expected {expected}",
        )
        for key, value, form, expected in (
            ("rope_scaling", "linear", "an object", "a mapping of names to values (found 'linear')"),
            ("rope_parameters", [1], "an object", "a mapping of names to values (found a list of 1 entry)"),
            ("rope_theta", "10000", "a number", "a number (found '10000')"),
            ("hidden_act", ["silu"], "a text", "text (found a list of 1 entry)"),
            ("tie_word_embeddings", "false", "true or false", "true or false (found 'false')"),
        )
    ),
    *(
        Case(
            f"{wrong} in `config.json`",
            source(config(**changes)),
            f"folder: base: config.json {message}",
        )
        for wrong, changes, message in (
            (
                "`rope_scaling` and `rope_parameters` with different factors",
                {
                    "rope_scaling": {"type": "linear", "factor": 2.0},
                    "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
                },
                "has rope_scaling and rope_parameters that contradict each other",
            ),
            (
                "two different bases of the rotary embeddings",
                {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
                "has different values as rope_theta and in rope_parameters",
            ),
            (
                "rotary embeddings of a type that transformers does not have",
                {"rope_scaling": {"type": "ntk", "factor": 2.0}},
                "has rotary embeddings of type 'ntk'; known are default, linear",
            ),
            (
                "rotary embeddings by the kind of layer for a type that has no kinds",
                {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 5000.0}}},
                "has rope_parameters for kinds of layers, which type 'llama' does not have",
            ),
            (
                "scaled rotary embeddings without a factor",
                {"rope_scaling": {"type": "linear"}},
                "has rotary embeddings of type 'linear' without factor",
            ),
            (
                "an activation that transformers does not have",
                {"hidden_act": "silux"},
                "has hidden_act 'silux', which transformers does not have",
            ),
        )
    ),
    Case(
        "tied embeddings beside an output head that is another matrix",
        source(config(tie_word_embeddings=True)),
        "folder: base: config.json has tie_word_embeddings, and lm_head.weight is not equal to model.embed_tokens.weight",
    ),
    *(
        Case(wrong, source(config(**changes), model_type=kind), f"folder: base: config.json {message}")
        for wrong, kind, changes, message in (
            (
                "a `type` of rotary embeddings that contradicts the `rope_type` beside it",
                "llama",
                {"rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 2.0}},
                "has rope_scaling with type 'yarn' and rope_type 'linear'",
            ),
            (
                "rotary embeddings of a part of each head for a type that has none",
                "llama",
                {"partial_rotary_factor": 0.5},
                "has a partial_rotary_factor, which type 'llama' does not have",
            ),
            (
                "scaled rotary embeddings whose factor is a text",
                "llama",
                {"rope_scaling": {"rope_type": "dynamic", "factor": "2"}},
                "has rotary embeddings with factor '2', which is not a positive number",
            ),
            (
                "scaled rotary embeddings with too few factors",
                "llama",
                {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
                "has rotary embeddings with 1 numbers as short_factor, and heads of width 8 need 4",
            ),
            (
                "a Gemma 3 whose scaled rotary embeddings have a `type` and no `rope_type`",
                "gemma3_text",
                {"rope_scaling": {"type": "linear", "factor": 8.0}},
                "has rope_scaling with type 'linear', which transformers 5 ignores for type 'gemma3_text'",
            ),
            (
                "a Gemma 3 whose `rope_parameters` are not for each kind of layers",
                "gemma3_text",
                {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
                "has rope_parameters that are not for each kind of layers, which transformers 5 ignores",
            ),
            (
                "a Gemma 3 that transformers 5 saved after it had ignored the `type` of its rotary embeddings",
                "gemma3_text",
                {
                    "rope_theta": None,
                    "rope_parameters": {
                        "full_attention": {"type": "linear", "rope_type": "default", "factor": 8.0}
                    },
                },
                "has rope_parameters.full_attention with type 'linear' and rope_type 'default'",
            ),
        )
    ),
    *(
        Case(wrong, source(config(**changes), model_type=kind), f"folder: base: config.json{message}")
        for wrong, kind, changes, message in (
            (
                "another base of the rotary embeddings inside `rope_scaling`",
                "llama",
                {"rope_scaling": {"rope_type": "default", "rope_theta": 100.0}},
                " has rope_theta 100.0 in rope_scaling, where transformers 4 does not look for it, and 5000 outside",
            ),
            (
                "a sliding window of no token",
                "mistral",
                {"sliding_window": 0},
                " has sliding_window 0, with which transformers fails at the first token",
            ),
            (
                "layers of a kind that the type does not have",
                "qwen2",
                {"layer_types": ["full_attention", "linear_attention"]},
                " has 'linear_attention' in layer_types, which type 'qwen2' does not have",
            ),
            (
                "a list of kinds of layers for a type whose layers are all alike",
                "mistral",
                {"layer_types": ["full_attention", "sliding_attention"]},
                " has layer_types, which type 'mistral' does not have",
            ),
            (
                "layers with a sliding window for a type that has none",
                "llama",
                {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8},
                " has 'sliding_attention' in layer_types, which type 'llama' does not have",
            ),
            (
                "layers with a sliding window that is off",
                "qwen3",
                {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8, "head_dim": 8},
                " has 'sliding_attention' in layer_types, and no sliding window",
            ),
            (
                "scaled rotary embeddings of a type whose class needs the width of a head for that",
                "mistral",
                {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
                " has rotary embeddings of type 'yarn' without head_dim, which transformers needs for type 'mistral'; add head_dim: 8",
            ),
            (
                "LongRoPE without the factor that transformers 4 needs",
                "llama",
                {
                    "rope_scaling": {
                        "rope_type": "longrope",
                        "short_factor": [1.0] * 4,
                        "long_factor": [2.0] * 4,
                    }
                },
                " has rotary embeddings of type 'longrope' without factor, which transformers 4 needs",
            ),
            (
                "a dtype that torch does not have",
                "llama",
                {"torch_dtype": "float17"},
                ": torch_dtype: 'float17' is not one of bfloat16, float16, float32 or float64; did you mean 'float16'?",
            ),
            (
                "a setting of old versions that makes transformers 5 fail",
                "llama",
                {"return_dict": False},
                ": return_dict: false is not true",
            ),
            (
                "a context of no token",
                "gpt_neox",
                {"n_positions": 0},
                ": n_positions: must be greater than 0 (found 0)",
            ),
        )
    ),
    Case(
        "a configuration with a byte order mark, which transformers does not read",
        source(
            lambda folder: (folder / "config.json").write_text(
                "\ufeff" + (folder / "config.json").read_text()
            )
        ),
        "folder: base: its config.json: it is not JSON: line 1, column 1: a byte order mark",
    ),
    Case(
        "a setting that is infinite",
        source(config(rope_theta=float("inf"))),
        "folder: base: its config.json: it is not JSON: Infinity is not a number in JSON",
    ),
    Case(
        "a negative base of the rotary embeddings",
        source(config(rope_theta=-10000.0)),
        "folder: base: config.json: rope_theta: must be greater than 0 (found -10000.0)",
    ),
    Case(
        "a configuration that lists more kinds of layers than the model has layers",
        source(config(layer_types=["full_attention"] * 3)),
        "folder: base: config.json lists 3 layer_types for 2 layers",
    ),
]
