"""Which configurations llama.cpp's converter turns into a GGUF that computes the same as transformers.

Of the rotary embeddings, the converter (class ``TextModel`` of version 0.1.1) writes what the table below lists, and leaves
out everything else with at most a warning in its log. llama.cpp's graph of a Llama has the activation SiLU, whatever a
configuration states. So whatever is not known to be written is refused. A sliding window is left out, too, but matters only to
texts that are longer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from herdbook.architectures.defaults import value_of
from herdbook.architectures.dense import rope_of
from herdbook.architectures.form import HEAD
from herdbook.architectures.gguf_forms import FORMS, expert_count, form_of
from herdbook.architectures.layers import FULL, SLIDING
from herdbook.architectures.meaning import ORIGINAL, SAME_ACTIVATION, SAME_SCALING, is_tied
from herdbook.architectures.mixtures import window_of
from herdbook.humanize import ordinal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from herdbook.architectures.gguf_form import Form

TOKENIZERS = ("tokenizer.json", "tokenizer.model")  # one of them is converted
# The settings that are written for each way to scale rotary embeddings; those in the second set are required.
_YARN = ("factor", "original_max_position_embeddings")
_LLAMA3 = (*_YARN, "low_freq_factor", "high_freq_factor")
_FACTORS = ("long_factor", "short_factor")
ROTARY_SCALING: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "default": (frozenset(("factor",)), frozenset()),
    "linear": (frozenset(("factor",)), frozenset(("factor",))),
    "yarn": (frozenset((*_YARN, "beta_fast", "beta_slow")), frozenset(_YARN)),
    "llama3": (frozenset(_LLAMA3), frozenset(_LLAMA3)),
    "longrope": (frozenset((*_FACTORS, ORIGINAL, "factor", "attention_factor")), frozenset(_FACTORS)),
}
# Numbers of layers of the Gemmas whose attention llama.cpp scales by hidden_size / num_attention_heads, not by head_dim.
_27B = (46, 62)
_NORMED_FROM = 64  # layers, with which a Command-R has norms of its heads, in llama.cpp
NO_ROPE_INTERVAL = 4  # of SmolLM3's layers, in llama.cpp
_NAMES = {"rope_theta", "rope_type", "type"}


def objection(config: Mapping[str, Any], tensors: Collection[str] = ()) -> str | None:
    """Return why a model cannot be converted to a GGUF that computes the same; None if it can.

    Args:
        config: The content of its ``config.json``, of any version of transformers.
        tensors: The names of its tensors, if they are known.
    """
    architecture = (config.get("architectures") or [None])[0]
    form = form_of(config)
    if form is None:
        return f"the architecture {architecture} is not supported, only {', '.join(FORMS)}"
    activation = config.get(form.activation_key) or form.activation
    if SAME_ACTIVATION.get(activation, activation) != form.activation:
        return f"llama.cpp computes {form.activation} in place of the activation {activation} ({form.activation_key})"
    for key, (default, only) in form.fixed.items():
        value = rope_of(dict(config))[0] if key == "rope_theta" else config.get(key, default)
        if key == "norm_topk_prob" and value_of(config, "num_experts_per_tok") == expert_count(config):
            continue  # if all experts are chosen, the sum of their weights is 1
        if (value or None) != (only or None):
            return f"llama.cpp computes as if {key} were {only}, and config.json has {value}"
    rope = config.get("rope_parameters") or {}
    if lacking := [key for key in form.stated if config.get(key, rope.get(key)) is None]:
        return f"llama.cpp's converter needs {lacking[0]} in config.json"
    if is_tied(config) and HEAD in tensors:
        return f"its embeddings are tied, and llama.cpp would still use {HEAD}, which transformers does not"
    return _layers_objection(form, config) or _rotary_objection(form, config)


def _layers_objection(form: Form, config: Mapping[str, Any]) -> str | None:
    """Return why single layers compute something else in llama.cpp."""
    if form.local_layers:
        return _gemma_objection(form, config)
    if form.architecture == "command-r":
        normed = config.get("num_hidden_layers", 0) >= _NORMED_FROM
        wrong = normed != bool(config.get("use_qk_norm"))
        return f"llama.cpp computes as if use_qk_norm were {normed} with so many layers" if wrong else None
    if form.architecture != "smollm3":
        return None
    interval = config.get("no_rope_layer_interval") or NO_ROPE_INTERVAL
    count = config.get("num_hidden_layers", 0)
    turned = config.get("no_rope_layers") or [not _is_nth(at, interval) for at in range(count)]
    if [bool(one) for one in turned] != [not _is_nth(at, NO_ROPE_INTERVAL) for at in range(len(turned))]:
        every = ordinal(NO_ROPE_INTERVAL)
        return f"llama.cpp leaves out rotary embeddings in every {every} layer, and config.json in others"
    return "llama.cpp has no sliding window for it" if config.get("use_sliding_window") else None


def _gemma_objection(form: Form, config: Mapping[str, Any]) -> str | None:
    count, step = config.get("num_hidden_layers", 0), form.local_layers
    kinds = [f"{'full' if _is_nth(at, step) else 'sliding'}_attention" for at in range(count)]
    pattern = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", step))
    if (config.get("layer_types") or kinds) != kinds or pattern != step:
        return f"llama.cpp gives a sliding window to all but every {ordinal(step)} layer, and config.json to others"
    if not config.get("sliding_window", True):
        return "llama.cpp gives it a sliding window, and config.json has none"
    split = count in _27B
    scale = config["hidden_size"] // config["num_attention_heads"] if split else config.get("head_dim", 256)
    if config.get("query_pre_attn_scalar", 256) != scale:
        return f"llama.cpp computes as if query_pre_attn_scalar were {scale}"
    caps = [config.get(f"{place}_logit_softcapping", True) for place in ("attn", "final")]
    if form.architecture == "gemma2" and not all(caps):
        return "llama.cpp's converter needs attn_logit_softcapping and final_logit_softcapping"
    return None


def _is_nth(layer: int, step: int) -> bool:
    return (layer + 1) % step == 0


def ignored_window(config: Mapping[str, Any]) -> int | None:
    """Return the sliding window in tokens that a GGUF of a model lacks; None if it has none, or its context is shorter."""
    form = form_of(config)
    if form and form.local_layers:  # its header has the window
        return None
    if config.get("model_type") != "mixtral":
        return window_of(config)
    window = config.get("sliding_window")
    return int(window) if window and window < config.get("max_position_embeddings", window + 1) else None


def scaled_by(config: Mapping[str, Any], way: str) -> dict[str, Any] | None:
    """Return the settings of rotary embeddings that are scaled in a way; None if they are not, or in another one."""
    _, settings = rope_of(dict(config))
    kind = settings and settings.get("rope_type", settings.get("type"))
    return settings if SAME_SCALING.get(str(kind), kind) == way else None


def original_length(config: Mapping[str, Any]) -> int:
    """Return the length of the texts that the short factors of LongRoPE are for, as a model of a Phi-3 states it."""
    return int(config[ORIGINAL] if config.get(ORIGINAL) is not None else config["rope_parameters"][ORIGINAL])


def attention_factor(config: Mapping[str, Any]) -> float:
    """Return by what the rotary embeddings of LongRoPE are multiplied, as llama.cpp's converter computes it."""
    original = original_length(config)
    scale = config["max_position_embeddings"] / original
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def long_from(config: Mapping[str, Any]) -> int | None:
    """Return the longest context in which llama.cpp computes a short text as transformers does; None if it always does.

    Of LongRoPE, llama.cpp chooses the factors by the length of its context, and transformers by that of the text.
    """
    return original_length(config) if scaled_by(config, "longrope") else None


def _sections(form: Form, config: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str | None]:
    """Return the settings of the rotary embeddings, and why those of layers with a window are others than llama.cpp's."""
    sections: list[Mapping[str, Any]] = [
        config[key] for key in ("rope_scaling", "rope_parameters") if config.get(key)
    ]
    if not form.local_layers:
        return sections, None
    local = [section[SLIDING] for section in sections if section.get(SLIDING)]
    wrong = next((kind for one in local if (kind := _kind_of(one)) != "default"), None)
    if wrong:
        return (
            [],
            f"rotary embeddings with rope_type {wrong} are not supported in layers with a sliding window",
        )
    found = [
        section.get(FULL) or section for section in sections if section.get(FULL) or SLIDING not in section
    ]
    return found, None


def _kind_of(section: Mapping[str, Any]) -> str:
    kind = str(section.get("rope_type") or section.get("type") or "default")
    return SAME_SCALING.get(kind, kind)


def _rotary_objection(form: Form, config: Mapping[str, Any]) -> str | None:
    sections, objection = _sections(form, config)
    if objection:
        return objection
    settings = {key: value for section in sections for key, value in section.items()}
    kinds = {_kind_of(section) for section in sections}
    if len(kinds) > 1:
        return f"rope_scaling and rope_parameters contradict each other: {' and '.join(sorted(kinds))}"
    kind = kinds.pop() if kinds else "default"
    if kind not in form.scaling:
        return f"rotary embeddings with rope_type {kind} are not supported, only {', '.join(form.scaling)}"
    written, required = ROTARY_SCALING[kind]
    given = {key for key, value in settings.items() if value is not None}
    partial = {config.get("partial_rotary_factor"), settings.get("partial_rotary_factor")} - {None}
    if objection := _partial_objection(form, config, partial):
        return objection
    if unknown := sorted(given - written - _NAMES - {"partial_rotary_factor"}):
        return f"rotary embeddings with rope_type {kind} and {unknown[0]} are not supported"
    if lacking := sorted(required - given):
        return f"rotary embeddings with rope_type {kind} need {lacking[0]} in config.json"
    return _factors_objection(config, settings, partial) if kind == "longrope" else None


def _factors_objection(
    config: Mapping[str, Any], settings: Mapping[str, Any], partial: Collection[Any]
) -> str | None:
    """Return why llama.cpp would not load the factors of LongRoPE, or multiply by another one than transformers."""
    turned = int(next(iter(partial), 1.0) * config["hidden_size"]) // config["num_attention_heads"]
    for key in _FACTORS:
        count = len(settings[key]) if isinstance(settings[key], list) else 0
        if count != turned // 2:
            return f"{key} has {count} numbers, and llama.cpp reads {turned // 2}"
    stated = config.get(ORIGINAL, settings.get(ORIGINAL))
    if type(stated) is not int or stated < 2:
        return f"{ORIGINAL} is {stated!r}, which is no length"
    original = original_length(config)
    expected = {
        ORIGINAL: original,
        "factor": config["max_position_embeddings"] / original,
        "attention_factor": attention_factor(config),
    }
    for key, ours in expected.items():
        if (value := settings.get(key)) is None:
            continue
        if type(value) not in {int, float} or not math.isclose(value, ours, rel_tol=1e-6):
            return f"llama.cpp computes as if {key} of the rotary embeddings were {ours:g}, and config.json has {value}"
    return None


def _partial_objection(form: Form, config: Mapping[str, Any], partial: Collection[Any]) -> str | None:
    """Return why the part of each head that is rotated would be another one. ``partial`` has the shares that are stated."""
    if not form.partial:
        if any(share != 1 for share in partial):
            return "rotary embeddings of a part of each head (partial_rotary_factor) are not supported"
    elif len(partial) > 1:
        return (
            f"config.json has more than one partial_rotary_factor: {' and '.join(map(str, sorted(partial)))}"
        )
    if not (form.partial or form.split_heads):
        return None
    split = config["hidden_size"] // config["num_attention_heads"]
    if config.get("head_dim") not in {None, split}:
        return f"llama.cpp computes as if head_dim were {split}, and config.json has {config['head_dim']}"
    return None
