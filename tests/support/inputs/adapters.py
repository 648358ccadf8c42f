"""Adapters with settings that are not understood, or that contradict their tensors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from support import tiny
from support.inputs import Case
from support.inputs.tokens import add, rename, swap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

START = "models.tuned.adapter: adapter: "
LAYER = "base_model.model.model.layers.0"
DOWN = "model.layers.0.mlp.down_proj.weight"
TOKENS = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"


def adapter(
    *, without: str = "", tensors: Mapping[str, list[int]] | None = None, tied: bool = False, **changes: Any
) -> Callable[[Path], Path]:
    """Return a maker of a model with an adapter of rank 4, with changed settings, without some tensors, or with others.

    Args:
        without: A part of the names of tensors that the adapter lacks.
        tensors: The shapes of further tensors of the adapter.
        tied: Whether the model's output head is its embeddings.
        changes: Settings of ``adapter_config.json``.
    """

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1, tie_word_embeddings=tied)
        place = tiny.write_adapter(folder / "adapter", folder / "base", seed=2)
        settings = place / "adapter_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | changes))
        if without or tensors:
            weights = place / "adapter_model.safetensors"
            kept = {
                name: tensor
                for name, tensor in load_file(weights).items()
                if not without or without not in name
            }
            more = {name: torch.ones(shape) for name, shape in (tensors or {}).items()}
            save_file(kept | more, weights, metadata={"format": "pt"})
        models = {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}}
        return tiny.write_recipe(folder / "recipe.yaml", models)

    return make


def trained(change: Callable[[Path], Any]) -> Callable[[Path], Path]:
    """Return a maker of a model with an adapter beside which lies the model's tokenizer, changed."""

    def make(folder: Path) -> Path:
        recipe = adapter()(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / "adapter" / name).write_bytes((folder / "base" / name).read_bytes())
        change(folder / "adapter")
        return recipe

    return make


OTHER = "models.tuned.adapter: it was trained with another tokenizer: "
CASES = [
    Case(
        "an adapter that was trained with a token that the model's tokenizer does not have",
        trained(lambda folder: add(folder, "<|im_start|>", 64)),
        f"{OTHER}'<|im_start|>' is not in that of 'base'",
    ),
    Case(
        "an adapter that was trained with another token in place of one of the model's",
        trained(lambda folder: rename(folder, {"w9": "<|im_start|>"})),
        f"{OTHER}24 stands for '<|im_start|>' there, and for 'w9' in that of 'base'",
    ),
    Case(
        "an adapter that was trained with other ids of tokens",
        trained(swap),
        f"{OTHER}'w1' is 17 there, and 16 in that of 'base'",
    ),
    Case(
        "an adapter with an output head for more tokens",
        adapter(modules_to_save=["lm_head"], tensors={"base_model.model.lm_head.weight": [66, 32]}),
        f"{START}lm_head.weight: the adapter has it in the shape [66, 32], the model in [64, 32] (the vocabulary was resized",
    ),
    *(
        Case(
            f"a LoRA with `init_lora_weights: {method}`, which changed the base",
            adapter(init_lora_weights=method),
            f"{START}init_lora_weights {method!r}: this initialization also changes the model's weights",
        )
        for method in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "of next year")
    ),
    *(
        Case(f"an adapter with `{key}`", adapter(**{key: value}), f"{START}{key} is not supported")
        for key, value in {
            "target_parameters": ["mlp.experts.gate_up_proj"],
            "layer_replication": [[0, 1]],
            "fan_in_fan_out": True,
            "ensure_weight_tying": True,
            "setting_of_next_year": 3,
        }.items()
    ),
    *(
        Case(f"an adapter without the tensors of its `{key}`", adapter(**{key: value}), f"{START}{message}")
        for key, value, message in [
            ("modules_to_save", ["lm_head"], "its modules_to_save include lm_head.weight"),
            (
                "modules_to_save",
                ["norm"],
                "its modules_to_save include model.layers.0.input_layernorm.weight",
            ),
            ("trainable_token_indices", [1], "its trainable_token_indices include model.embed_tokens.weight"),
            ("lora_bias", True, "its lora_bias include model.layers.0.mlp.down_proj.bias"),
            ("use_dora", True, f"{DOWN}: it has no lora_magnitude_vector, and use_dora is on"),
        ]
    ),
    *(
        Case(f"an adapter with `{key}: {value}`", adapter(**{key: value}), f"{START}{message}")
        for key, value, message in [
            ("bias", "some", "adapter_config.json: bias: 'some' is not one of none, all or lora_only"),
            ("use_dora", "yes", "adapter_config.json: use_dora: expected true or false (found 'yes')"),
            (
                "modules_to_save",
                "lm_head",
                "adapter_config.json: modules_to_save: expected a list (found 'lm_head')",
            ),
            ("target_modules", "(", "target_modules: '(' is not a regular expression"),
            (
                "target_modules",
                ["up_proj"],
                f"{DOWN}: it has LoRA matrices, and target_modules do not include it",
            ),
            (
                "layers_to_transform",
                [1],
                f"{DOWN}: it has LoRA matrices, and target_modules do not include it",
            ),
            (
                "exclude_modules",
                ["down_proj"],
                f"{DOWN}: it has LoRA matrices, and target_modules do not include it",
            ),
            (
                "trainable_token_indices",
                ["<eos>"],
                "adapter_config.json: trainable_token_indices.0: expected a whole number (found '<eos>')",
            ),
        ]
    ),
    *(
        Case(f"an adapter {what}", adapter(tensors={name: shape}, **changes), f"{START}{message}")
        for what, name, shape, changes, message in [
            (
                "with a magnitude vector without `use_dora`",
                f"{LAYER}.mlp.down_proj.lora_magnitude_vector",
                [32],
                {},
                f"{DOWN}: it has a lora_magnitude_vector, and use_dora is off",
            ),
            (
                "with a whole tensor that its settings do not include",
                f"{LAYER}.self_attn.q_proj.weight",
                [32, 32],
                {},
                "the adapter has a whole tensor model.layers.0.self_attn.q_proj.weight, and neither",
            ),
            (
                "with a resized vocabulary",
                "base_model.model.model.embed_tokens.weight",
                [66, 32],
                {"modules_to_save": ["embed_tokens"]},
                "model.embed_tokens.weight: the adapter has it in the shape [66, 32], the model in [64, 32] (the vocabulary",
            ),
            (
                "with a token that the model does not have",
                TOKENS,
                [1, 32],
                {"trainable_token_indices": [64]},
                "model.embed_tokens.weight: trainable_token_indices repeat a token, or name one that",
            ),
            (
                "with fewer rows than tokens",
                TOKENS,
                [1, 32],
                {"trainable_token_indices": [3, 5]},
                "model.embed_tokens.weight: rows of tokens of shape [1, 32] do not fit 2 tokens",
            ),
            (
                "of another method",
                f"{LAYER}.mlp.down_proj.oft_R.weight",
                [4, 4],
                {},
                "'base' has no tensor model.layers.0.mlp.down_proj.oft_R.weight",
            ),
            (
                "with a tensor of an unknown name",
                "prompt_embeddings",
                [4, 4],
                {},
                "tensor prompt_embeddings is not one of a LoRA adapter",
            ),
            (
                "with rows of tokens beside LoRA matrices",
                f"{LAYER}.mlp.down_proj.token_adapter.trainable_tokens_delta",
                [1, 64],
                {"trainable_token_indices": {"down_proj": [1]}},
                f"{DOWN}: A, B, tokens of an adapter do not make a change together",
            ),
        ]
    ),
    Case(
        "an adapter with an output head of its own for a model that ties it to the embeddings",
        adapter(
            tied=True,
            modules_to_save=["lm_head"],
            tensors={"base_model.model.lm_head.weight": [64, 32]},
        ),
        f"{START}it changes lm_head.weight, which the model uses both as embeddings and as output head",
    ),
    Case(
        "an adapter with embeddings for a model whose output head is tied to them",
        adapter(
            tied=True,
            modules_to_save=["embed_tokens"],
            tensors={"base_model.model.model.embed_tokens.weight": [64, 32]},
        ),
        f"{START}it changes model.embed_tokens.weight, which the model uses both as embeddings and as output head",
    ),
    Case(
        "a LoRA bias of a module that has no bias, which PEFT does not merge either",
        adapter(lora_bias=True, tensors={f"{LAYER}.mlp.down_proj.lora_B.bias": [32]}),
        f"{START}'base' has no tensor model.layers.0.mlp.down_proj.bias; PEFT does not merge a LoRA bias",
    ),
    Case(
        "`r: 8` over tensors of rank 4",
        adapter(r=8),
        f"{START}model.layers.0.mlp.down_proj.weight: adapter_config.json gives rank 8",
    ),
    Case(
        "a `rank_pattern` that contradicts the tensors",
        adapter(rank_pattern={r"layers\.1\..*": 2}),
        f"{START}model.layers.1.mlp.down_proj.weight: adapter_config.json gives rank 2",
    ),
    Case(
        "two patterns with different values for one matrix",
        adapter(alpha_pattern={"up_proj": 8, "mlp.up_proj": 16}),
        f"{START}model.layers.0.mlp.up_proj.weight: patterns of alpha_pattern with several values match it",
    ),
    Case(
        "an `alpha_pattern` that is not a regular expression",
        adapter(alpha_pattern={"(": 2}),
        f"{START}alpha_pattern: '(' is not a regular expression",
    ),
    Case(
        "`lora_alpha` that is not a number",
        adapter(lora_alpha="16"),
        f"{START}adapter_config.json: lora_alpha: expected a number (found '16')",
    ),
    Case(
        "an adapter without the tensors of one of its target modules",
        adapter(without="layers.1.mlp.up_proj"),
        f"{START}its target_modules include model.layers.1.mlp.up_proj.weight",
    ),
]
