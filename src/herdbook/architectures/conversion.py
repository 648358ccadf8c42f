"""Which configurations llama.cpp's converter turns into a GGUF that computes the same as transformers.

Of the rotary embeddings, the converter (class ``TextModel`` of version 0.1.1) writes what the table below lists, and leaves
out everything else with at most a warning in its log. llama.cpp's graph of a Llama has the activation SiLU, whatever a
configuration states. So whatever is not known to be written is refused. A sliding window is left out, too, but matters only to
texts that are longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import rope_of
from herdbook.architectures.form import HEAD
from herdbook.architectures.gguf_forms import FORMS, REFUSED, form_of
from herdbook.architectures.meaning import SAME_ACTIVATION, is_tied
from herdbook.architectures.mixtures import window_of
from herdbook.humanize import ordinal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from herdbook.architectures.gguf_forms import Form

TOKENIZERS = ("tokenizer.json", "tokenizer.model")  # one of them is converted
# The settings that are written for each way to scale rotary embeddings; those in the second set are required.
_YARN = ("factor", "original_max_position_embeddings")
_LLAMA3 = (*_YARN, "low_freq_factor", "high_freq_factor")
ROTARY_SCALING: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "default": (frozenset(("factor",)), frozenset()),
    "linear": (frozenset(("factor",)), frozenset(("factor",))),
    "yarn": (frozenset((*_YARN, "beta_fast", "beta_slow")), frozenset(_YARN)),
    "llama3": (frozenset(_LLAMA3), frozenset(_LLAMA3)),
}
_UNSUPPORTED = {
    "longrope": "since llama.cpp chooses their factors by the length of its context, and transformers by that of the text"
}
# The hyperparameters that llama.cpp computes with, and their keys in config.json.
HYPERPARAMETERS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "expert_used_count": "num_experts_per_tok",
}
# Numbers of layers of the Gemmas whose attention llama.cpp scales by hidden_size / num_attention_heads, not by head_dim.
_27B = (46, 62)
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
    if architecture in REFUSED:
        return f"the architecture {architecture} is not supported: {REFUSED[architecture]}"
    if form is None:
        return f"the architecture {architecture} is not supported, only {', '.join(FORMS)}"
    activation = config.get(form.activation_key) or form.activation
    if SAME_ACTIVATION.get(activation, activation) != form.activation:
        return f"llama.cpp computes {form.activation} in place of the activation {activation} ({form.activation_key})"
    for key, (default, only) in form.fixed.items():
        value = rope_of(dict(config))[0] if key == "rope_theta" else config.get(key, default)
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


def _by_kind(section: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [section[kind] for kind in ("sliding_attention", "full_attention") if section.get(kind)]


def _rotary_objection(form: Form, config: Mapping[str, Any]) -> str | None:
    sections = [config[key] for key in ("rope_scaling", "rope_parameters") if config.get(key)]
    if form.local_layers:  # a section for each kind of layers
        sections = [part for one in sections for part in (_by_kind(one) or [one])]
    settings = {key: value for section in sections for key, value in section.items()}
    kinds = {section.get("rope_type") or section.get("type") or "default" for section in sections}
    if len(kinds) > 1:
        return f"rope_scaling and rope_parameters contradict each other: {' and '.join(sorted(kinds))}"
    kind = kinds.pop() if kinds else "default"
    if kind not in form.scaling:
        reason = _UNSUPPORTED.get(kind, f"only {', '.join(form.scaling)}")
        return f"rotary embeddings with rope_type {kind} are not supported, {reason}"
    written, required = ROTARY_SCALING[kind]
    given = {key for key, value in settings.items() if value is not None}
    partial = {config.get("partial_rotary_factor"), settings.get("partial_rotary_factor")} - {None}
    if objection := _partial_objection(form, config, partial):
        return objection
    if unknown := sorted(given - written - _NAMES - {"partial_rotary_factor"}):
        return f"rotary embeddings with rope_type {kind} and {unknown[0]} are not supported"
    if lacking := sorted(required - given):
        return f"rotary embeddings with rope_type {kind} need {lacking[0]} in config.json"
    return None


def _partial_objection(form: Form, config: Mapping[str, Any], partial: Collection[Any]) -> str | None:
    """Return why the part of each head that is rotated would be another one. ``partial`` has the shares that are stated."""
    if not form.partial:
        wrong = any(share != 1 for share in partial)
        message = "rotary embeddings of a part of each head (partial_rotary_factor) are not supported"
        return message if wrong else None
    if len(partial) > 1:
        return (
            f"config.json has more than one partial_rotary_factor: {' and '.join(map(str, sorted(partial)))}"
        )
    split = config["hidden_size"] // config["num_attention_heads"]
    if config.get("head_dim") not in {None, split}:
        return f"llama.cpp computes as if head_dim were {split}, and config.json has {config['head_dim']}"
    return None
