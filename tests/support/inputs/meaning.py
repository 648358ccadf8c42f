"""Models of equal shapes whose numbers mean different things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLERP = {"merge": {"method": "slerp", "base": "a", "other": "b", "t": 1}}
MEAN = {"merge": {"method": "linear", "models": [{"model": "a"}, {"model": "b"}]}}
STACK = {
    "merge": {
        "method": "passthrough",
        "slices": [{"model": "a", "layers": "0-1"}, {"model": "b", "layers": "0-1"}],
    }
}
MIXTURE = {
    "moe": {
        "base": "a",
        "gate": "random",
        "experts": [{"model": "a", "prompts": ["w1"]}, {"model": "b", "prompts": ["w2"]}],
    }
}


def pair(
    entry: dict[str, Any], both: dict[str, Any] | None = None, *, layers: str = "model.layers", **changes: Any
) -> Callable[[Path], Path]:
    """Return a maker of two models, one with a changed configuration, and a model made from both.

    Args:
        entry: How it is made.
        both: Settings of both models.
        layers: What the names of their layers' tensors begin with.
        changes: Settings of the second.
    """

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "a", seed=0, **(both or {}))
        tiny.write_model(folder / "b", seed=1, **(both or {}) | changes)
        for name in "ab" if layers != "model.layers" else "":
            weights = folder / name / "model.safetensors"
            held = {key.replace("model.layers", layers): value for key, value in load_file(weights).items()}
            save_file(held, weights, metadata={"format": "pt"})
        models = {**{name: {"folder": name} for name in "ab"}, "made": entry}
        return tiny.write_recipe(folder / "recipe.yaml", models)

    return make


HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4}
CASES = [
    Case(
        "a slerp at `t: 1` onto a model with more and narrower heads",
        pair(SLERP, **HEADS),
        "models.made.merge: 'b' has a number of attention heads of 8, not 4 as 'a'",
    ),
    Case(
        "a mean of models with different activations",
        pair(MEAN, hidden_act="gelu"),
        "models.made.merge: 'b' has an activation of gelu, not silu as 'a'",
    ),
    Case(
        "a slerp of models with different norm epsilons",
        pair(SLERP, rms_norm_eps=1e-6),
        "models.made.merge: 'b' has a norm epsilon of 1e-06, not 1e-05 as 'a'",
    ),
    Case(
        "a stack of layers with different rotary bases",
        pair(STACK, rope_theta=10000.0),
        "models.made.merge: 'b' has rotary embeddings of base 10000, not base 5000 as 'a'",
    ),
    Case(
        "a mean of models of which one has scaled rotary embeddings",
        pair(MEAN, rope_scaling={"type": "linear", "factor": 2.0}),
        "models.made.merge: 'b' has rotary embeddings of base 5000, scaled by",
    ),
    Case(
        "a mixture with an expert of another activation",
        pair(MIXTURE, hidden_act="gelu"),
        "models.made.moe.experts.1: 'b' has an activation of gelu, not silu as the base",
    ),
    Case(
        "a mixture with an expert of other heads",
        pair(MIXTURE, **HEADS),
        "models.made.moe.experts.1: 'b' has a number of attention heads of 8, not 4 as the base",
    ),
    Case(
        "a mixture with an expert of another norm epsilon",
        pair(MIXTURE, rms_norm_eps=1e-6),
        "models.made.moe.experts.1: 'b' has a norm epsilon of 1e-06, not 1e-05 as the base",
    ),
    Case(
        "a mean of models of which one has biases in its attention",
        pair(MEAN, attention_bias=True),
        "models.made.merge: model.layers.0.self_attn.k_proj.bias is [16] in 'b' and missing in 'a' (see attention_bias in their "
        "config.json)",
    ),
    Case(
        "a mixture with an expert that has biases in its attention, of a base that has none",
        pair(MIXTURE, attention_bias=True),
        "models.made.moe.experts.1: 'b': model.layers.0.self_attn.k_proj.bias is of shape [16], in the base missing "
        "(attention_bias; 8 biases differ)",
    ),
    Case(
        "a mean of models of which one normalizes queries and keys",
        pair(MEAN, model_type="qwen3", head_dim=8),
        "models.made.merge: 'b' is of type 'qwen3', 'a' of type 'llama'",
    ),
    Case(
        "a mean of models of a type with settings of its own, of which one differs",
        pair(MEAN, {"model_type": "granite", "logits_scaling": 8.0}, logits_scaling=16.0),
        "models.made.merge: 'b' has a logits_scaling of 16.0, not 8.0 as 'a'",
    ),
    Case(
        "a slerp of models of which one caps its logits",
        pair(SLERP, {"model_type": "gemma2", "final_logit_softcapping": 30.0}, final_logit_softcapping=None),
        "models.made.merge: 'b' has a final_logit_softcapping of 0, not 30.0 as 'a'",
    ),
    Case(
        "a mean of models with different rotary bases in their layers of sliding attention alone",
        pair(
            MEAN,
            {"model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 1e4},
            rope_theta=None,
            rope_local_base_freq=None,
            rope_parameters={
                "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
                "sliding_attention": {"rope_theta": 5e4, "rope_type": "default"},
            },
        ),
        "models.made.merge: 'b' has rotary embeddings of base 50000, not base 10000 (sliding_attention) as 'a'",
    ),
    Case(
        "a mean of models that rotate different parts of each head",
        pair(MEAN, {"model_type": "phi", "partial_rotary_factor": 0.5}, partial_rotary_factor=0.25),
        "models.made.merge: 'b' has rotary embeddings of base 5000, over 0.25 of each head, not base 5000, over 0.5 of each head",
    ),
    Case(
        "a stack of layers whose names are others than `model.layers.0`",
        pair(STACK, {"model_type": "gpt_neox"}, layers="gpt_neox.layers"),
        "models.made.merge: 'a' has tensors such as gpt_neox.layers.0",
    ),
    Case(
        "a stack of layers that alternate by their number, which the configuration does not list",
        pair(STACK, {"model_type": "gemma2"}),
        "models.made.merge: 'a': layers of type 'gemma2' may depend on their number",
    ),
    Case(
        "a stack of layers of which some have a sliding window by their number",
        pair(STACK, {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1}),
        "models.made.merge: 'a': use_sliding_window is on",
    ),
    Case(
        "a stack of layers of which one model's configuration lists those without rotary embeddings, and the other's does not",
        pair(
            STACK,
            {"model_type": "smollm3", "layer_types": ["full_attention"] * 2},
            no_rope_layers=[1, 0],
        ),
        "models.made.merge: config.json of 'a' has no list no_rope_layers with an entry for each layer",
    ),
]
