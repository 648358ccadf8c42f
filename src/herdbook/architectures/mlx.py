"""The models that mlx-lm has: the names of their tensors, the settings that its classes read, and what it computes otherwise.

Source: mlx-lm 0.32.2, ``utils.py`` and ``models``. Its classes know their own names and defaults: some settings they read under other
names than transformers 5 writes, or not at all, and compute something else without a word. So every setting that they read is written
under the name that they read, and a model with a setting that they lack is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.defaults import DEFAULTS, head_width, key_value_heads, value_of
from herdbook.architectures.dense import rope_of
from herdbook.architectures.form import HEAD
from herdbook.architectures.meaning import ACTIVATION, SAME_ACTIVATION, is_tied
from herdbook.architectures.mixtures import FAMILIES, OWN_NAMES, expert_of, is_router, window_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SUFFIX = ".weight"
STACKED = "switch_mlp"  # the module that holds the matrices of all experts of a layer, stacked
SCALINGS = ("linear", "llama3")  # of rotary embeddings, in which mlx-lm and transformers agree, as tests show
_BIAS = re.compile(r"\.self_attn\.([qkvo])_proj\.bias$")


@dataclass(frozen=True)
class _Kind:
    """What a class of mlx-lm reads.

    Args:
        biases: Projections of the attention that always have a bias.
        optional_biases: Whether all of them have one with ``attention_bias``, and those of the MLP with ``mlp_bias``.
        own_width: Whether the width of a head is read, and not the hidden size divided by the heads.
        scaled: Whether rotary embeddings may be scaled.
        tied: Whether the embeddings may be the head.
        normalizes: Whether the weights of a token's experts can be divided by their sum, as ``norm_topk_prob`` requests.
        dense_layers: Whether some layers of a mixture may have an MLP instead of experts.
        reads: Settings that it reads and transformers has not for this type, with the value that stands for transformers' behavior.
    """

    biases: str = ""
    optional_biases: bool = False
    own_width: bool = False
    scaled: bool = True
    tied: bool = True
    normalizes: bool = True
    dense_layers: bool = True
    reads: tuple[tuple[str, Any], ...] = ()


_KINDS = {
    "llama": _Kind(optional_biases=True, own_width=True, reads=(("layer_types", None),)),
    # the class of a Llama
    "mistral": _Kind(
        own_width=True, reads=(("attention_bias", False), ("layer_types", None), ("mlp_bias", False))
    ),
    "qwen2": _Kind(biases="qkv"),
    "qwen3": _Kind(own_width=True),
    "mixtral": _Kind(scaled=False),
    "qwen2_moe": _Kind(biases="qkv", scaled=False, tied=False, normalizes=False, dense_layers=False),
    "qwen3_moe": _Kind(own_width=True, scaled=False),
}


def is_encoded(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is a matrix, embeddings and head included, and no router.

    Args:
        name: Its canonical name.
        shape: Its shape.
    """
    return name.endswith(SUFFIX) and len(shape) == 2 and not is_router(name)


def kept(names: Iterable[str]) -> list[str]:
    """Return the linear layers that keep their width and are named in ``config.json``: mlx-lm goes by the tensors, so none is."""
    del names
    return []


def is_left_out(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether a tensor is not in the encoded model: what mlx-lm drops, and refuses where it is encoded."""
    return name.endswith("inv_freq") or (name == HEAD and is_tied(config))


def module_of(name: str) -> str:
    """Return what the names of the tensors start with that a matrix is stored as: for those of experts, the one of all experts."""
    expert = expert_of(name)
    if expert is None:
        return name.removesuffix(SUFFIX)
    inside, _, matrix = name.removesuffix(SUFFIX).partition(f".experts.{expert[0]}.")
    return f"{inside}.{STACKED}.{_dense(inside).get(matrix, matrix)}"


def is_stacked(module: str) -> bool:
    """Return whether several matrices are stacked in the tensors of a module."""
    return f".{STACKED}." in module


def matrices_of(module: str, count: int) -> list[str]:
    """Return the canonical names of the matrices that are stored under a module's name, of stacked ones in the order of the experts.

    Args:
        module: The module.
        count: How many are stacked in it.
    """
    if not is_stacked(module):
        return [f"{module}{SUFFIX}"]
    inside, _, matrix = module.partition(f".{STACKED}.")
    own = {dense: name for name, dense in _dense(inside).items()}
    return [f"{inside}.experts.{place}.{own.get(matrix, matrix)}{SUFFIX}" for place in range(count)]


def _dense(inside: str) -> dict[str, str]:
    """Return the names of a dense MLP's matrices, by those that an expert's have in a block."""
    block = inside.rpartition(".")[2]
    names = next((family.matrices for family in FAMILIES.values() if family.block == block), OWN_NAMES)
    return {name: dense for dense, name in names.items()}


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of ``config.json`` that mlx-lm's class reads, with the values that transformers reads them as.

    Args:
        config: The content of the ``config.json`` of a model that it can hold.
    """
    kind = str(config["model_type"])
    theta, scaling = rope_of(dict(config))
    apart = {"sliding_window", "use_sliding_window", "max_window_layers", "bos_token_id", "eos_token_id"}
    found = {key: value_of(config, key) for key in DEFAULTS[kind] if key not in apart}
    found |= {
        "head_dim": head_width(config),
        "num_key_value_heads": key_value_heads(config),
        "rope_scaling": scaling,
        "rope_theta": theta,
        "tie_word_embeddings": is_tied(config),
        **dict(_KINDS[kind].reads),
    }
    if "norm_topk_prob" in found:
        sparse = {"decoder_sparse_step": 1, "mlp_only_layers": []}
        found |= {key: config.get(key) or value for key, value in sparse.items()}
    return found


def objections(name: str, config: Mapping[str, Any], tensors: Iterable[str]) -> Iterator[str]:
    """Yield why mlx-lm cannot hold a model, or would compute something else.

    Args:
        name: Its name in the recipe.
        config: The content of its ``config.json``.
        tensors: The names of its tensors.
    """
    kind = config.get("model_type")
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        yield (
            f"{name!r} has the model_type {kind!r}; those that mlx-lm computes as transformers does, as tests show, are "
            f"{', '.join(_KINDS)}; leave it out"
        )
        return
    for reason in _differences(config, known, tensors):
        yield f"{name!r} has {reason} (mlx-lm 0.32.2, {kind}); leave it out"


def _differences(config: Mapping[str, Any], kind: _Kind, tensors: Iterable[str]) -> Iterator[str]:
    """Yield what a model has that a class of mlx-lm does not compute."""
    activation = value_of(config, "hidden_act")
    if SAME_ACTIVATION.get(activation, activation) != ACTIVATION:
        yield f"the activation {activation}, and mlx-lm computes with {ACTIVATION}"
    _, scaling = rope_of(dict(config))
    method = scaling and scaling.get("rope_type", scaling.get("type"))
    if method and not (kind.scaled and method in SCALINGS):
        yield f"rotary embeddings that are scaled by {method!r}, which mlx-lm reads otherwise or not at all"
    width = config["hidden_size"] // config["num_attention_heads"]
    if not kind.own_width and head_width(config) != width:
        yield f"heads that are {head_width(config)} wide, and mlx-lm takes them as {width} wide"
    if not kind.tied and is_tied(config):
        yield "embeddings that are its head, too, and mlx-lm looks for a head"
    if not kind.normalizes and value_of(config, "norm_topk_prob"):
        yield "norm_topk_prob, which mlx-lm does not read: the weights of a token's experts would not add up to one"
    if not kind.dense_layers and (
        config.get("mlp_only_layers") or (config.get("decoder_sparse_step") or 1) != 1
    ):
        yield "layers without experts, and mlx-lm looks for experts in all"
    found = {match[1] for match in map(_BIAS.search, tensors) if match}
    expected = {*kind.biases} | (
        {*"qkvo"} if kind.optional_biases and config.get("attention_bias") else set()
    )
    if found != expected:
        yield (
            f"biases of the attention for {_listed(found)}, and mlx-lm has them for {_listed(expected)} of its projections"
        )


def _listed(projections: set[str]) -> str:
    return ", ".join(sorted(projections)) or "none"


def warnings(config: Mapping[str, Any]) -> list[str]:
    """Return what mlx-lm computes otherwise than the model that is encoded, where only some texts come out otherwise."""
    window = window_of(config)
    if window is None:
        return []
    return [
        f"mlx-lm has no sliding window for {config['model_type']}: texts of more than {window:,} tokens are computed with full attention"
    ]
