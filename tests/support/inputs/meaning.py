"""Models of equal shapes whose numbers mean different things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def pair(entry: dict[str, Any], **changes: Any) -> Callable[[Path], Path]:
    """Return a maker of two models, one with a changed configuration, and a model made from both."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "a", seed=0)
        tiny.write_model(folder / "b", seed=1, **changes)
        models = {**{name: {"folder": name} for name in "ab"}, "made": entry}
        return tiny.write_recipe(folder / "recipe.yaml", models)

    return make


# Twice the heads, each of half the width: the matrices have the shapes that they had.
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
]
