"""What decides the meaning of a matrix besides its shape: two models of equal shapes can compute different functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.defaults import default_of, value_of
from herdbook.architectures.dense import rope_of
from herdbook.architectures.layers import FULL, SLIDING
from herdbook.architectures.mixtures import window_of
from herdbook.architectures.modules import sections

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ACTIVATION = "silu"
SAME_ACTIVATION = {"swish": "silu"}
SAME_SCALING = {"su": "longrope"}
# Ways to scale rotary embeddings that take the model's length where their settings do not contain the original one.
FROM_LENGTH = ("yarn", "longrope")
WINDOW = "sliding_window"
ORIGINAL, LENGTH = "original_max_position_embeddings", "max_position_embeddings"
# The types whose layers compute by the settings that `_settings` reads and no others.
LLAMA_LIKE = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "deepseek"}
)
# Types all of whose layers compute alike, whatever their number, except for what their tensors' shapes show.
ALIKE = LLAMA_LIKE | {
    *(
        "apertus",
        "arcee",
        "bitnet",
        "cohere",
        "deepseek_v2",
        "deepseek_v3",
        "ernie4_5",
        "gemma",
        "glm",
        "glm4",
    ),
    *("granite", "granitemoe", "helium", "hunyuan_v1_dense", "nemotron", "olmo", "olmo2", "olmoe", "phi"),
    *("phi3", "phimoe", "persimmon", "seed_oss", "stablelm", "starcoder2"),
}
# Keys of a configuration with a value for each layer.
PER_LAYER = (
    *("layer_types", "mlp_layer_types", "no_rope_layers", "layers_block_type", "layer_rope_theta"),
    *("indexer_types", "num_attention_heads_per_layer", "activation_sparsity_pattern"),
)
# Settings of other types that do not decide what their matrices mean: names and versions, ids of tokens, training, generation,
# lengths. Counts and widths are seen in the shapes; what remains is compared, since its effect is unknown.
_NAMES = (
    *("_auto_class", "_commit_hash", "_diffusers_version", "_flash_attn_2_enabled", "_from_model_config"),
    *("_name_or_path", "_sliding_window_pattern"),
    *(
        "architectures",
        "auto_map",
        "dtype",
        "eos_token",
        "id2label",
    ),
    *("label2id", "model_type", "num_hidden_layers", "tie_word_embeddings", "tokenizer_class", "torch_dtype"),
    *("transformers_version", "unsloth_version", "use_cache", "vocab_size"),
)
_LENGTHS = (
    *("attention_chunk_size", "layer_types", LENGTH, "max_window_layers", "n_positions", "seq_length"),
    *(WINDOW, "sliding_window_pattern", "use_sliding_window"),
)
_TRAINING = ("gradient_checkpointing", "initializer_range", "pretraining_tp", "seq_aux")
_GENERATION = (
    *("chunk_size_feed_forward", "do_sample", "early_stopping", "length_penalty", "max_length", "min_length"),
    *(
        "no_repeat_ngram_size",
        "num_beams",
        "problem_type",
        "repetition_penalty",
        "return_dict",
        "temperature",
    ),
    *("task_specific_params", "top_k", "top_p", "typical_p"),
)
# Settings that `_settings` reads, under all their names.
_READ = (
    *("hidden_act", "hidden_activation", "num_attention_heads", "num_key_value_heads", "rms_norm_eps"),
    *("norm_topk_prob", "scoring_func"),
    *("partial_rotary_factor", "rope_local_base_freq", "rope_parameters", "rope_scaling", "rope_theta"),
    *(ORIGINAL, "rotary_emb_base", "rotary_pct"),
)
_APART = frozenset((*_NAMES, *_LENGTHS, *_TRAINING, *_GENERATION, *_READ))
_APART_ENDS = (
    "_token_id",
    "_token_index",
    "_dropout",
    "_dropout_prob",
    "_pdrop",
    "dropout",
    "_loss_coef",
    "_jitter_noise",
)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Return whether the output head is the embeddings. A head that is stored all the same must be equal, and is not read."""
    return bool(config.get("tie_word_embeddings", False))


def numbered(config: Mapping[str, Any]) -> str:
    """Return why a model's layers may compute something else under other numbers; empty if they do not.

    A setting of each layer that is listed in the configuration moves with the layer.
    """
    kind = config.get("model_type")
    if config.get("layer_types"):
        return ""
    if kind not in ALIKE:
        return f"layers of type {kind!r} may depend on their number"
    if config.get("use_sliding_window"):  # of a Qwen, in the layers from max_window_layers on
        return "use_sliding_window is on, and which layers have the window depends on their number"
    return ""


def differences(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the settings in which a model differs from another one, so that their matrices mean different things.

    Args:
        config: The ``config.json`` of the one.
        other: That of the other.

    Returns:
        A phrase for each difference, such as ``a norm epsilon of 1e-05, not 1e-06``.
    """
    return [
        f"{difference}{_inside(key)}"
        for key, one, two in _pairs(config, other)
        for difference in _differences(one, two)
    ]


def _pairs(
    config: Mapping[str, Any], other: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Return the configurations of the modules of two models side by side; of those of text alone, the whole ones."""
    mine, theirs = sections(config), sections(other)
    return [(key, mine.get(key, {}), theirs.get(key, {})) for key in {**mine, **theirs}]


def _inside(key: str) -> str:
    return f" (in {key})" if key else ""


def _differences(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    mine, theirs = _settings(config), _settings(other)
    kinds = {*_rotary(config), *_rotary(other)}
    kinds -= {""} if len(kinds) > 1 else set()
    my_rotary, their_rotary = (_rotary_of_kinds(one, sorted(kinds)) for one in (config, other))
    return [
        *(
            f"{name} of {mine[name]}, not {theirs[name]}"
            for name in mine
            if name in theirs and mine[name] != theirs[name]
        ),
        *(
            f"rotary embeddings of {text}, not {their_rotary[kind]}{f' ({kind})' if kind else ''}"
            for kind, text in my_rotary.items()
            if text != their_rotary[kind]
        ),
    ]


def unsaid(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the settings that only the one of two configurations contains, so that they cannot be compared.

    Different versions of transformers write different settings. For one that is missing, its default counts.
    """
    found = []
    for key, one, two in _pairs(config, other):
        mine, theirs = _settings(one), _settings(two)
        found += [
            f"{name} of {mine[name]}{_inside(key)}" for name in mine if name not in theirs and mine[name]
        ]
    return found


def lengths(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the settings of how far the attention reaches, and how many experts a token has, in which models differ.

    Equal numbers mean the same in both; but what is made of them has the settings of one of them.

    Args:
        config: The ``config.json`` of the one.
        other: That of the other.

    Returns:
        A phrase for each difference, such as ``sliding window (4096 tokens, none)``.
    """
    found = []
    for key, one, two in _pairs(config, other):
        mine, theirs = _lengths(one), _lengths(two)
        stated = [name for name in {**mine, **theirs} if name == WINDOW or (name in mine and name in theirs)]
        for name in stated:
            first, second = (side.get(name, "not stated") for side in (mine, theirs))
            found += [f"{name} ({first}, {second}){_inside(key)}"] if first != second else []
    return found


def _lengths(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("model_type") not in LLAMA_LIKE:
        return {key: config[key] for key in _LENGTHS if config.get(key) is not None}
    window = window_of(config)
    found = {
        "context": f"{value_of(config, LENGTH)} tokens",
        "sliding window": f"{window} tokens" if window else "none",
        "experts per token": value_of(config, "num_experts_per_tok"),
    }
    if window and default_of(config["model_type"], "max_window_layers"):
        kinds = config.get("layer_types")
        first = value_of(config, "max_window_layers")
        found["layers with the window"] = f"{kinds}" if kinds else f"from {first} on"
    return found


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    is_known = config.get("model_type") in LLAMA_LIKE
    activation = config.get("hidden_activation") or value_of(config, "hidden_act")
    heads = config.get("num_attention_heads")
    settings = {
        "a number of attention heads": heads,
        "a number of key and value heads": value_of(config, "num_key_value_heads") or heads,
        "an activation": SAME_ACTIVATION.get(activation, activation),
        "a norm epsilon": value_of(config, "rms_norm_eps"),
        "a norm_topk_prob": value_of(config, "norm_topk_prob"),
        "a scoring_func": value_of(config, "scoring_func"),
    }
    if (
        not is_known or "num_hidden_layers" not in config
    ):  # its defaults are not known either, or it is only a part
        settings = {name: value for name, value in settings.items() if value is not None}
        settings |= {
            f"a {key}": value or 0
            for key, value in config.items()
            if key not in _APART and "_implementation" not in key and not key.endswith(_APART_ENDS)
        }
    return settings


def _rotary(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of the rotary embeddings by the kind of layer; the kind is empty if there is one for all layers.

    They have other names and places in each version of transformers, and in configurations of some types.
    """
    given = config.get("rope_parameters") or {}
    by_kind = {kind: value for kind, value in given.items() if isinstance(value, dict)}
    if by_kind:
        unscaled = {**config, "rope_scaling": None}
        return {kind: _described({**unscaled, "rope_parameters": value}) for kind, value in by_kind.items()}
    if local := config.get("rope_local_base_freq"):
        return {FULL: _described(config), SLIDING: _described({"rope_theta": local})}
    return {"": _described(config)}


def _rotary_of_kinds(config: Mapping[str, Any], kinds: Iterable[str]) -> dict[str, str]:
    """Return the settings of the rotary embeddings for these kinds of layers, of which a configuration may have but one."""
    given = _rotary(config)
    one = given.get("", "none")
    plain = {**config, "rope_scaling": None, "rope_parameters": None}
    # with several kinds, it is the layers of full attention whose embeddings are scaled
    return {
        kind: given.get(kind, _described(plain) if kind == SLIDING and "" in given else one) for kind in kinds
    }


def _described(config: Mapping[str, Any]) -> str:
    base = config.get("rope_theta") or config.get("rotary_emb_base")
    theta, scaling = rope_of({**config, "rope_theta": base})
    given = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    share = (
        given.get("partial_rotary_factor") or config.get("partial_rotary_factor") or config.get("rotary_pct")
    )
    text = f"base {theta:g}"
    if scaling:
        scaling = {"rope_type": scaling.get("type"), **scaling}
        scaling["rope_type"] = SAME_SCALING.get(scaling["rope_type"], scaling["rope_type"])
        if scaling["rope_type"] in FROM_LENGTH and (length := config.get(ORIGINAL) or config.get(LENGTH)):
            scaling.setdefault(ORIGINAL, length)
        settings = [
            f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}"
            for key, value in sorted(scaling.items())
            if value is not None and key not in {"type", "rope_theta", "partial_rotary_factor"}
        ]
        text += f", scaled by {', '.join(settings)}"
    if share not in {None, 1} and config.get("model_type") not in LLAMA_LIKE:
        text += f", over {share:g} of each head"
    return text
