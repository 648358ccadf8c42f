"""Adapters with settings that are not understood, or that contradict their tensors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START = "models.tuned.adapter: adapter: "


def adapter(*, without: str = "", **changes: Any) -> Callable[[Path], Path]:
    """Return a maker of a model with an adapter of rank 4, with changed settings or without some tensors."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1)
        place = tiny.write_adapter(folder / "adapter", folder / "base", seed=2)
        settings = place / "adapter_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | changes))
        if without:
            weights = place / "adapter_model.safetensors"
            kept = {name: tensor for name, tensor in load_file(weights).items() if without not in name}
            save_file(kept, weights, metadata={"format": "pt"})
        models = {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}}
        return tiny.write_recipe(folder / "recipe.yaml", models)

    return make


CASES = [
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
            "use_dora": True,
            "modules_to_save": ["lm_head"],
            "lora_bias": True,
            "trainable_token_indices": [1],
            "target_parameters": ["mlp.experts.gate_up_proj"],
            "layer_replication": [[0, 1]],
            "fan_in_fan_out": True,
            "setting_of_next_year": 3,
        }.items()
    ),
    Case("an adapter with trained biases", adapter(bias="all"), f"{START}trained biases are not supported"),
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
        f"{START}lora_alpha '16' is not a positive number",
    ),
    Case(
        "an adapter without the tensors of one of its target modules",
        adapter(without="layers.1.mlp.up_proj"),
        f"{START}its target_modules include model.layers.1.mlp.up_proj.weight",
    ),
]
