"""Settings of LoRA adapters, as PEFT reads them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal, get_args

from herdbook.architectures.dense import layer_of
from herdbook.architectures.patterns import named

if TYPE_CHECKING:
    from collections.abc import Iterable

Patterns = Literal["rank_pattern", "alpha_pattern"]
# What a tensor of an adapter is to the tensor that it changes.
Role = Literal["A", "B", "embedding_A", "embedding_B", "magnitude", "bias", "tokens", "base", "saved"]
ROLES: dict[str, Role] = {role: role for role in get_args(Role)}

TENSOR = re.compile(
    r"base_model\.model\.(?P<module>.+?)\.(?:"
    r"lora_(?P<side>[AB])\.weight|lora_(?P<embedding>embedding_[AB])|lora_(?P<magnitude>magnitude)_vector(?:\.weight)?"
    r"|lora_B\.(?P<bias>bias)|token_adapter\.trainable_(?P<tokens>tokens)_delta"
    r"|(?P<base>base)_layer\.(?P<of_base>weight|bias)|(?P<saved>weight|bias))"
)


def changes_of(names: Iterable[str]) -> tuple[dict[str, dict[Role, str]], list[str]]:
    """Sort an adapter's tensors by the tensors that they change.

    Args:
        names: The names of the adapter's tensors.

    Returns:
        For each tensor of the model, the names of the adapter's tensors that change it, by their roles; and the names that
        are not understood. Whether the model has such tensors is not checked.

    Source: PEFT, ``get_peft_model_state_dict``.
    """
    changes: dict[str, dict[Role, str]] = {}
    unknown = []
    for name in names:
        match = TENSOR.fullmatch(name)
        if match is None:
            unknown.append(name)
            continue
        role, parameter = _role(match)
        roles = changes.setdefault(f"{match['module']}.{parameter}", {})
        if role in roles:
            unknown.append(name)
        roles[role] = name
    return changes, unknown


def _role(match: re.Match[str]) -> tuple[Role, str]:
    """Return a tensor's role, and whether it changes a weight or a bias."""
    if match["base"]:
        return "base", match["of_base"]
    if match["saved"]:
        return "saved", match["saved"]
    for group in ("side", "embedding", "magnitude", "tokens"):
        if match[group]:
            return ROLES[match[group]], "weight"
    return "bias", "bias"


def is_targeted(config: dict[str, Any], module: str) -> bool:
    """Return whether PEFT trains LoRA matrices of a module.

    Source: PEFT, ``check_target_module_exists``; the layers are those of ``layers_to_transform``.
    """

    def among(modules: str | list[str]) -> bool:
        if isinstance(modules, str):
            return re.fullmatch(modules, module) is not None
        return any(f".{module}".endswith(f".{name}") for name in modules)

    targets, excluded = config.get("target_modules") or [], config.get("exclude_modules") or []
    layers = config.get("layers_to_transform")
    if targets == "all-linear":
        targets = r".*\.layers\..*"
    if among(excluded) or not among(targets):
        return False
    if (
        isinstance(targets, list) and module in targets
    ):  # a whole name, such as that of the output head, has no layer
        return True
    return layers is None or layer_of(f"{module}.weight") in ([layers] if isinstance(layers, int) else layers)


def token_indices(config: dict[str, Any], module: str) -> list[int] | None:
    """Return the tokens whose rows an adapter replaces in a module, in the order of its rows; None without any.

    Source: PEFT's ``LoraConfig``, ``trainable_token_indices``: a list is that of the embeddings.
    """
    indices = config.get("trainable_token_indices")
    if isinstance(indices, list):
        indices = {"embed_tokens": indices}
    return next((rows for name, rows in (indices or {}).items() if module.endswith(name)), None)


def setting_of(
    config: dict[str, Any], patterns: Patterns, default: Literal["r", "lora_alpha"], module: str
) -> float:
    """Return rank or alpha of one module: the value of a pattern that matches its name, or the general one.

    Args:
        config: The adapter's ``adapter_config.json``.
        patterns: The key of the patterns.
        default: The key of the general value.
        module: Dotted name of the module, such as ``model.layers.0.mlp.up_proj``.
    """
    return next(iter(matching(config, patterns, module)), float(config[default]))


def matching(config: dict[str, Any], patterns: Patterns, module: str) -> list[float]:
    """Return the values of all patterns that match a module's name.

    Patterns are regular expressions for the whole name, or for what follows one of its dots.

    Source: PEFT, ``get_pattern_key``.
    """
    values = config.get(patterns) or {}
    return [float(value) for pattern, value in values.items() if re.match(named(pattern), module)]


def scale_of(config: dict[str, Any], module: str) -> float:
    """Return the factor of a module's LoRA product: alpha / rank, or alpha / sqrt(rank) with ``use_rslora``.

    Args:
        config: The adapter's ``adapter_config.json``.
        module: Dotted name of the module, such as ``model.layers.0.mlp.up_proj``.

    Source: PEFT's ``LoraConfig``; rank-stabilized scaling: Kalajdzievski 2023, arXiv:2312.03732.
    """
    rank = setting_of(config, "rank_pattern", "r", module)
    alpha = setting_of(config, "alpha_pattern", "lora_alpha", module)
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
