"""Which configurations llama.cpp's converter turns into a GGUF that computes the same as transformers.

Of the rotary embeddings, the converter (class ``TextModel`` of version 0.1.1) writes what the table below lists, and leaves
out everything else with at most a warning in its log. llama.cpp's graph of a Llama has the activation SiLU, whatever a
configuration says. So whatever is not known to be written is refused. A sliding window is left out, too, but matters only to
texts that are longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.form import HEAD
from herdbook.architectures.meaning import ACTIVATION, SAME_ACTIVATION, is_tied

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM")
TOKENIZERS = ("tokenizer.json", "tokenizer.model")  # one of them is converted
# The settings that are written for each way to scale rotary embeddings; those in the second set are required.
_YARN = ("factor", "original_max_position_embeddings")
ROTARY_SCALING: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "default": (frozenset(("factor",)), frozenset()),
    "linear": (frozenset(("factor",)), frozenset(("factor",))),
    "yarn": (frozenset((*_YARN, "beta_fast", "beta_slow")), frozenset(_YARN)),
}
# The hyperparameters that llama.cpp computes with, and their keys in config.json.
HYPERPARAMETERS = {
    "llama.block_count": "num_hidden_layers",
    "llama.context_length": "max_position_embeddings",
    "llama.embedding_length": "hidden_size",
    "llama.feed_forward_length": "intermediate_size",
    "llama.attention.head_count": "num_attention_heads",
    "llama.attention.head_count_kv": "num_key_value_heads",
    "llama.attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "llama.rope.freq_base": "rope_theta",
    "llama.expert_count": "num_local_experts",
    "llama.expert_used_count": "num_experts_per_tok",
    "llama.vocab_size": "vocab_size",
}
_NAMES = {"rope_theta", "rope_type", "type"}


def objection(config: Mapping[str, Any], tensors: Collection[str] = ()) -> str | None:
    """Return why a model cannot be converted to a GGUF that computes the same; None if it can.

    Args:
        config: The content of its ``config.json``, of any version of transformers.
        tensors: The names of its tensors, if they are known.
    """
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in ARCHITECTURES:
        return f"the architecture {architecture} is not supported, only {', '.join(ARCHITECTURES)}"
    activation = config.get("hidden_act") or ACTIVATION
    if SAME_ACTIVATION.get(activation, activation) != ACTIVATION:
        return f"llama.cpp computes {ACTIVATION} in place of the activation {activation} (hidden_act)"
    if is_tied(config) and HEAD in tensors:
        return f"its embeddings are tied, and llama.cpp would use {HEAD} all the same, which transformers does not"
    return _rotary_objection(config)


def _rotary_objection(config: Mapping[str, Any]) -> str | None:
    sections = [config[key] for key in ("rope_scaling", "rope_parameters") if config.get(key)]
    settings = {key: value for section in sections for key, value in section.items()}
    kinds = {section.get("rope_type") or section.get("type") or "default" for section in sections}
    if len(kinds) > 1:
        return f"rope_scaling and rope_parameters contradict each other: {' and '.join(sorted(kinds))}"
    kind = kinds.pop() if kinds else "default"
    if kind not in ROTARY_SCALING:
        return f"rotary embeddings with rope_type {kind} are not supported, only {', '.join(ROTARY_SCALING)}"
    written, required = ROTARY_SCALING[kind]
    given = {key for key, value in settings.items() if value is not None}
    partial = {config.get("partial_rotary_factor"), settings.get("partial_rotary_factor")} - {None, 1}
    if partial:
        return "rotary embeddings of a part of each head (partial_rotary_factor) are not supported"
    if unknown := sorted(given - written - _NAMES - {"partial_rotary_factor"}):
        return f"rotary embeddings with rope_type {kind} and {unknown[0]} are not supported"
    if lacking := sorted(required - given):
        return f"rotary embeddings with rope_type {kind} need {lacking[0]} in config.json"
    return None
