"""The entries of a GGUF's header that follow from ``config.json``, by the end of their keys."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from herdbook.architectures.conversion import attention_factor, original_length, scaled_by
from herdbook.architectures.defaults import default_of, value_of
from herdbook.architectures.dense import rope_of
from herdbook.architectures.gguf_forms import EXPERT_COUNTS
from herdbook.architectures.gguf_settings import WITH_EXPERTS
from herdbook.architectures.layers import FULL, SLIDING
from herdbook.verify.gguf.model import May, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.verify.gguf.model import Model
    from herdbook.weights.gguf_header import Value

# Architectures whose width of rotary embeddings and number of rows of embeddings are written.
_WITH_WIDTHS = ("llama", "smollm3", "granite", "granitemoe")
_ORIGINAL_LENGTH = "original_max_position_embeddings"
_GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}  # llama.cpp's numbers


def _number(names: tuple[str, ...], kind: type, model: Model) -> Value | None:
    """Return the first of some settings, or its default, as an integer or a float."""
    for name in names:
        if (given := model.settings.get(name)) is not None:
            return cast("Value", kind(given))
    of_type = (default_of(model.settings.get("model_type"), name) for name in names)
    default = next((found for found in of_type if found is not None), None)
    return None if default is None else cast("Value", kind(default))


def _head(model: Model) -> int | None:
    width = value_of(model.settings, "head_dim")
    return None if width is None else int(width)


def _split(model: Model) -> int:
    return int(model.settings["hidden_size"]) // int(model.settings["num_attention_heads"])


def _length_of_head(model: Model) -> Value | May:
    form = model.form
    if form and (form.partial or form.split_heads):  # the converter does not look at head_dim
        return May(_split(model))
    return _head(model) or May(_split(model))


def _key_value_heads(model: Model) -> Value | May:
    given = value_of(model.settings, "num_key_value_heads")
    return int(given) if given else May(int(model.settings["num_attention_heads"]))


def _base(model: Model) -> Value | None:
    form = model.form
    if form and "rope.freq_base" in form.unwritten:
        return None
    if (section := (model.settings.get("rope_parameters") or {}).get(FULL)) is not None:
        return float(section["rope_theta"])
    given = model.settings.get("rope_theta") or (model.settings.get("rope_parameters") or {}).get(
        "rope_theta"
    )
    if given:
        return rope_of(dict(model.settings))[0]
    return _number(("rope_theta",), float, model)


def _scaling(name: str, kind: type, model: Model) -> Value | None:
    """Return a setting of rotary embeddings that are scaled in a way that the converter writes."""
    if model.architecture == "phi3":  # of any way, and nothing else
        return original_length(model.settings) if name == _ORIGINAL_LENGTH else None
    if model.architecture == "command-r":
        return "none" if name == "type" else None
    of_all = (model.settings.get("rope_parameters") or {}).get(FULL)
    _, settings = rope_of({**model.settings, "rope_parameters": of_all} if of_all else dict(model.settings))
    settings = settings or {}
    way = settings.get("rope_type", settings.get("type"))
    if way not in {"linear", "yarn"}:
        return None
    if name == "type":
        return str(way)
    given = settings.get(name)
    return None if given is None or (way == "linear" and name != "factor") else cast("Value", kind(given))


def _of_long_contexts(model: Model) -> Value | None:
    return attention_factor(model.settings) if scaled_by(model.settings, "longrope") else None


def _local_base(model: Model) -> Value | None:
    if model.architecture != "gemma3":
        return None
    section = (model.settings.get("rope_parameters") or {}).get(SLIDING) or {}
    given = section.get("rope_theta")
    return _number(("rope_local_base_freq",), float, model) if given is None else float(given)


def _of_local(name: str, kind: type, model: Model) -> Value | None:
    """Return a setting that is written for models some of whose layers have a sliding window."""
    if model.architecture == "phi3" and name == "sliding_window":
        return int(model.settings.get(name) or 0)
    form = model.form
    return _number((name,), kind, model) if form and form.local_layers else None


def _of_rotary(model: Model) -> Value | May | None:
    form = model.form
    if form and form.partial:
        rope = model.settings.get("rope_parameters") or {}
        share = rope.get("partial_rotary_factor", model.settings.get("partial_rotary_factor", 1.0))
        return int(float(share) * _split(model))
    return _length_of_head(model) if model.architecture in _WITH_WIDTHS else None


def _rows(model: Model) -> Value | None:
    return _number(("vocab_size",), int, model) if model.architecture in _WITH_WIDTHS else None


def _parallel(model: Model) -> Value | None:
    return (
        bool(model.settings.get("use_parallel_residual", True)) if model.architecture == "stablelm" else None
    )


def _causal(model: Model) -> Value | None:
    return False if model.settings.get("is_causal") is False else None


def _gating(model: Model) -> Value | Unknown | None:
    names = ("scoring_func", "score_function", "score_func", "moe_router_activation", "expert_selection_fn")
    given = next((value for name in names if (value := model.settings.get(name)) is not None), None)
    return None if given is None else _GATING.get(given, Unknown())


_FLOATS = {"rms_norm_eps", "rope_theta"}
_OTHERWISE = {"attention.head_count_kv": _key_value_heads, "rope.freq_base": _base}
_MORE = {
    "expert_count": EXPERT_COUNTS,
    "expert_group_count": ("n_group",),
    "expert_group_used_count": ("topk_group",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size", "shared_intermediate_size"),
}
_MULTIPLIERS = {  # of a Granite, and of a Command-R
    "attention.scale": ("attention_multiplier",),
    "embedding_scale": ("embedding_multiplier",),
    "logit_scale": ("logits_scaling", "logit_scale"),
    "residual_scale": ("residual_multiplier",),
}
_SCALING = {
    "type": ("type", str),
    "factor": ("factor", float),
    "original_context_length": (_ORIGINAL_LENGTH, int),
    "yarn_beta_fast": ("beta_fast", float),
    "yarn_beta_slow": ("beta_slow", float),
}
ROWS: tuple[tuple[str, Callable[[Model], Value | May | Unknown | None]], ...] = (
    *(
        (key, _OTHERWISE.get(key) or partial(_number, (name,), float if name in _FLOATS else int))
        for key, name in WITH_EXPERTS.items()
    ),
    *((key, partial(_number, names, int)) for key, names in _MORE.items()),
    ("vocab_size", _rows),
    ("attention.key_length", _length_of_head),
    ("attention.value_length", _length_of_head),
    ("attention.causal", _causal),
    ("use_parallel_residual", _parallel),
    (
        "attention.layer_norm_epsilon",
        partial(_number, ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"), float),
    ),
    ("rope.dimension_count", _of_rotary),
    ("rope.freq_base_swa", _local_base),
    ("attention.sliding_window", partial(_of_local, "sliding_window", int)),
    ("attn_logit_softcapping", partial(_of_local, "attn_logit_softcapping", float)),
    ("final_logit_softcapping", partial(_of_local, "final_logit_softcapping", float)),
    *((f"rope.scaling.{key}", partial(_scaling, *about)) for key, about in _SCALING.items()),
    ("rope.scaling.attn_factor", _of_long_contexts),
    ("expert_gating_func", _gating),
    *((key, partial(_number, names, float)) for key, names in _MULTIPLIERS.items()),
)
