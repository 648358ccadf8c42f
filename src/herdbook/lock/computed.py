"""Whether every version of transformers computes the same of a configuration, and can compute anything of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.defaults import default_of, head_width, key_value_heads, value_of
from herdbook.architectures.dense import rope_of
from herdbook.architectures.layers import FULL, SLIDING
from herdbook.architectures.meaning import LLAMA_LIKE, ORIGINAL, SAME_SCALING
from herdbook.architectures.mixtures import BY_MODEL_TYPE, WINDOWLESS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The ways to scale rotary embeddings that transformers has, each with the settings that it requires. Source: its
# `modeling_rope_utils.py`.
SCALINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
# Types with rotary embeddings for each kind of layer, whose configurations in transformers 5 begin with the `rope_type` default
# and then update it: what does not say `rope_type` does not count.
BY_KIND_OF_LAYER = frozenset({"gemma3_text", "gemma3n_text", "olmo3", "modernbert-decoder"})
# The keys of transformers' `ACT2FN`.
ACTIVATIONS = frozenset(
    {
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
        *(
            "gelu_pytorch_tanh",
            "hardswish",
            "laplace",
            "leaky_relu",
            "linear",
            "mish",
            "quick_gelu",
            "relu",
            "relu2",
        ),
        *("relu6", "sigmoid", "silu", "swish", "tanh"),
    }
)
# Types whose layers all have the sliding window, if there is one, and whose classes know the width of a head only if it is stated.
ONE_WINDOW = frozenset({"mistral", "mixtral"})
# Ways to scale rotary embeddings for which transformers reads the width of a head from `head_dim` alone.
BY_WIDTH = ("dynamic", "yarn", "longrope")


def otherwise(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why some version of transformers would not load a model, or would compute something else than another version."""
    scaling, parameters = ({**(config.get(key) or {})} for key in ("rope_scaling", "rope_parameters"))
    kind = config.get("model_type")
    yield from ambiguous(config)
    if any(isinstance(value, dict) for value in parameters.values()):
        if kind in LLAMA_LIKE:
            yield f"has rope_parameters for kinds of layers, which type {kind!r} does not have"
        return
    kinds = {_scaling_of(section) for section in (scaling, parameters) if section}
    shared = (scaling.keys() & parameters.keys()) - {"type", "rope_type", "rope_theta"}
    if len(kinds) > 1 or any(scaling[key] != parameters[key] for key in shared):
        yield "has rope_scaling and rope_parameters that contradict each other; remove one of them"
    thetas = {
        section["rope_theta"] for section in (config, parameters) if section.get("rope_theta") is not None
    }
    if len(thetas) > 1:
        yield "has different values as rope_theta and in rope_parameters; remove one of them"
    theta, inner = rope_of(dict(config))[0], scaling.get("rope_theta")
    if inner not in (None, theta):
        yield f"has rope_theta {inner!r} in rope_scaling, where transformers 4 does not look for it, and {theta:g} outside; remove one"
    yield from _window(config)
    if kind not in LLAMA_LIKE:
        return
    if config.get("is_causal", True) is not True:
        yield f"has is_causal {config['is_causal']!r}, so that a token sees those that follow it; such models write no text"
    if config["num_attention_heads"] > 0:  # which the shapes show otherwise
        yield from _unusable(config)
    for scaled in kinds:
        if scaled not in SCALINGS:
            yield f"has rotary embeddings of type {scaled!r}, which is none of {', '.join(SCALINGS)}"
            continue
        settings = {**scaling, **parameters}
        if lacking := [key for key in SCALINGS[scaled] if not settings.get(key)]:
            yield f"has rotary embeddings of type {scaled!r} without {lacking[0]}"
        for key in SCALINGS[scaled]:
            yield from _wrong_setting(config, key, settings.get(key))
        yield from _unread(config, scaled, settings)
    if any(
        section.get("partial_rotary_factor") not in (None, 1) for section in (config, scaling, parameters)
    ):
        yield f"has a partial_rotary_factor, which type {kind!r} does not have"
    if (activation := config.get("hidden_act")) and activation not in ACTIVATIONS:
        yield f"has hidden_act {activation!r}, which transformers does not have"


def _window(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a sliding window, or the list of the layers that have it, makes a model fail or differ from the list."""
    kind, kinds = config.get("model_type"), set(config.get("layer_types") or ())
    is_off = default_of(kind, "use_sliding_window") is False and not config.get("use_sliding_window")
    if config.get("sliding_window") == 0 and not is_off:
        yield "has sliding_window 0, with which transformers fails at the first token; set it to null"
    if kind not in LLAMA_LIKE:
        return
    if other := sorted(kinds - {FULL, SLIDING}):
        yield f"has {other[0]!r} in layer_types, which type {kind!r} does not have"
    elif kinds and kind in ONE_WINDOW:
        yield f"has layer_types, which type {kind!r} does not have: all of its layers have the sliding window; remove them"
    elif SLIDING in kinds and kind in WINDOWLESS:
        yield f"has {SLIDING!r} in layer_types, which type {kind!r} does not have"
    elif SLIDING in kinds and (is_off or not value_of(config, "sliding_window")):
        yield f"has {SLIDING!r} in layer_types, and no sliding window (use_sliding_window, sliding_window)"


def _unread(config: Mapping[str, Any], scaled: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a version of transformers does not find by itself when it scales rotary embeddings."""
    if config.get("model_type") in ONE_WINDOW and scaled in BY_WIDTH and not config.get("head_dim"):
        yield (
            f"has rotary embeddings of type {scaled!r} without head_dim, which transformers needs for type "
            f"{config['model_type']!r}; add head_dim: {head_width(config)}"
        )
    if scaled == "longrope" and not (settings.get("factor") or config.get(ORIGINAL)):
        yield f"has rotary embeddings of type 'longrope' without factor, which transformers 4 needs, or {ORIGINAL} beside them"


def _unusable(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a model loads and fails at the first token; of widths and counts, those that its shapes do not show."""
    heads, groups, width = config["num_attention_heads"], key_value_heads(config), head_width(config)
    if groups > 0 and heads % groups:
        yield f"has {heads} heads, which is not a multiple of its {groups} key and value heads"
    if width % 2:
        yield f"has heads of width {width}, which rotary embeddings cannot turn in pairs"
    family = BY_MODEL_TYPE.get(config["model_type"])
    if family is None:
        return
    experts, chosen = (value_of(config, key) for key in (family.counts[0], "num_experts_per_tok"))
    if isinstance(experts, int) and isinstance(chosen, int) and not 0 < chosen <= experts:
        yield f"has num_experts_per_tok {chosen}, and {experts} experts"


def _wrong_setting(config: Mapping[str, Any], key: str, value: Any) -> Iterator[str]:
    """Yield why a setting of scaled rotary embeddings is not a positive number, or not one for each pair of a head's dimensions."""
    if not key.startswith(("short_", "long_")):
        if not isinstance(value, int | float) or value <= 0:
            yield f"has rotary embeddings with {key} {value!r}, which is not a positive number"
        return
    width = config.get("head_dim") or config["hidden_size"] // max(1, config["num_attention_heads"])
    if not isinstance(value, list) or len(value) != width // 2:
        have = f"{len(value)} numbers" if isinstance(value, list) else repr(value)
        yield f"has rotary embeddings with {have} as {key}, and heads of width {width} need {width // 2}"


def ambiguous(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why versions of transformers read different ways to scale rotary embeddings from one section."""
    kind = config.get("model_type")
    for key in ("rope_scaling", "rope_parameters"):
        section = config.get(key) or {}
        inner = {f"{key}.{name}": value for name, value in section.items() if isinstance(value, dict)}
        for place, settings in {key: section, **inner}.items():
            old, new = (settings.get(name) for name in ("type", "rope_type"))
            if old and new and SAME_SCALING.get(old, old) != SAME_SCALING.get(new, new):
                yield f"has {place} with type {old!r} and rope_type {new!r}; remove the one that is wrong"
        if kind not in BY_KIND_OF_LAYER:
            continue
        if (
            key == "rope_scaling"
            and section.get("type", "default") != "default"
            and "rope_type" not in section
        ):
            yield (
                f"has rope_scaling with type {section['type']!r}, which transformers 5 ignores for type {kind!r}; name it rope_type, "
                "if the model was trained so, or remove it"
            )
        if key == "rope_parameters" and section and not inner:
            yield (
                f"has rope_parameters that are not for each kind of layers, which transformers 5 ignores for type {kind!r}; put "
                "them under full_attention and sliding_attention"
            )


def _scaling_of(section: Mapping[str, Any]) -> str:
    return str(section.get("rope_type") or section.get("type") or "default")
