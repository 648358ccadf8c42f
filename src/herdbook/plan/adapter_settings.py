"""The settings of an adapter: which are understood, and which rule out folding it in exactly."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from herdbook.architectures.patterns import wrong_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

# Settings of training and of the computer: they do not affect what an adapter's tensors mean.
WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "eva_config",
        "inference_mode",
        "layers_pattern",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
UNDERSTOOD = frozenset(
    {
        "alpha_pattern",
        "bias",
        "exclude_modules",
        "init_lora_weights",
        "layers_to_transform",
        "lora_alpha",
        "lora_bias",
        "modules_to_save",
        "peft_type",
        "r",
        "rank_pattern",
        "target_modules",
        "trainable_token_indices",
        "use_dora",
        "use_rslora",
    }
)
# Initializations after which the model's own weights are as they were.
KEPT_BASE = ("gaussian", "eva", "orthogonal")
BIASES = ("none", "all", "lora_only")


def unsupported(config: Mapping[str, Any]) -> list[str]:
    """Return the settings of an adapter that rule out folding it in exactly, one line each.

    Only settings that are known are accepted; any other may change what the weights mean, unless it is empty or off.

    Source: PEFT's ``LoraConfig``, whose fields are the keys of ``adapter_config.json``.
    """
    problems = []
    if str(config.get("peft_type", "")).upper() != "LORA":
        problems.append(f"peft_type {config.get('peft_type')!r} is not LORA")
    problems += [
        f"{key} is not supported"
        for key, value in config.items()
        if value and key not in WITHOUT_EFFECT and key not in UNDERSTOOD
    ]
    start = config.get("init_lora_weights")
    if start not in (None, True, False, *KEPT_BASE):
        problems.append(
            f"init_lora_weights {start!r}: this initialization also changes the model's weights, or is unknown. "
            "Convert the adapter to a plain LoRA: PEFT's save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)"
        )
    if (config.get("bias") or "none") not in BIASES:
        problems.append(f"bias {config['bias']!r} is not one of {', '.join(BIASES)}")
    problems += [
        f"{key} {config[key]!r} is not true or false"
        for key in ("lora_bias", "use_dora", "use_rslora")
        if not isinstance(config.get(key), bool | None)
    ]
    problems += [
        f"{key} {config.get(key)!r} is not a positive number"
        for key in ("r", "lora_alpha")
        if not _is_number(config.get(key))
    ]
    for key in ("rank_pattern", "alpha_pattern"):
        problems += _bad_patterns(key, config.get(key) or {})
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        problems += _bad_modules(key, config.get(key) or [])
    if not _is_integers(config.get("layers_to_transform"), single=True):
        problems.append(f"layers_to_transform {config['layers_to_transform']!r} is not a list of layers")
    tokens = config.get("trainable_token_indices")
    if not all(map(_is_integers, tokens.values() if isinstance(tokens, dict) else [tokens])):
        problems.append("trainable_token_indices is not a list of tokens, nor one for each module")
    return problems


def _bad_modules(key: str, modules: Any) -> list[str]:
    if isinstance(modules, str) and key != "modules_to_save":
        problem = wrong_pattern(modules)
        return [f"{key}: {modules[:200]!r} is not a regular expression: {problem}"] if problem else []
    if not isinstance(modules, list) or not all(isinstance(module, str) and module for module in modules):
        return [f"{key} {modules!r} is not a list of names"]
    return []


def _is_integers(value: Any, *, single: bool = False) -> bool:
    if value is None or (single and isinstance(value, int)):
        return True
    return isinstance(value, list) and all(type(one) is int for one in value)


def _bad_patterns(key: str, patterns: Any) -> list[str]:
    if not isinstance(patterns, dict):
        return [f"{key} is not an object of patterns and numbers"]
    problems = []
    for pattern, value in patterns.items():
        if problem := wrong_pattern(pattern):
            problems.append(f"{key}: {pattern[:200]!r} is not a regular expression: {problem}")
        if not _is_number(value):
            problems.append(f"{key}: {pattern!r}: {value!r} is not a positive number")
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
