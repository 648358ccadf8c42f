"""Planning an adapter: its matrices are folded into those of the model, everything else is copied."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from herdbook.architectures.form import HEAD
from herdbook.architectures.lora import changes_of, is_targeted, matching, setting_of, token_indices
from herdbook.architectures.meaning import is_tied
from herdbook.errors import RecipeError
from herdbook.lock import ADAPTER_CONFIG
from herdbook.plan.code import COPY, Code
from herdbook.plan.operation import FoldAdapter, TakeOver
from herdbook.plan.part import parts_like, plan_part

if TYPE_CHECKING:
    from herdbook.architectures.lora import Role
    from herdbook.lock import LockedAdapter
    from herdbook.plan.model import Node, Part, Tensor
    from herdbook.recipe import Adapter

ADAPTER_CODE = Code("adapter", ("herdbook.steps.adapter.step",))
MATRIX = 2  # dimensions
EMBEDDINGS = "embed_tokens.weight"
FLOATING = ("F64", "F32", "F16", "BF16")
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
TIED = "it changes {}, which the model uses both as embeddings and as output head; PEFT trains one use alone"
BIASES = ("none", "all", "lora_only")


def plan_adapter(
    name: str, model: Adapter, locked: LockedAdapter, parent: Node, max_bytes: int
) -> tuple[Part, ...]:
    """Return the parts of a model with an adapter folded in.

    Raises:
        RecipeError: If the adapter does not fit the model, or is of a kind that cannot be folded in exactly.
    """
    changes, unknown = changes_of(tensor.name for tensor in locked.tensors)
    problems = unsupported(locked.config)
    problems += [f"tensor {tensor} is not one of a LoRA adapter, and is not supported" for tensor in unknown]
    problems += [
        f"tensor {tensor.name} has dtype {tensor.dtype}; expected one of {', '.join(FLOATING)}"
        for tensor in locked.tensors
        if tensor.dtype not in FLOATING
    ]
    shapes = {tensor.name: tensor.shape for tensor in locked.tensors}
    for target, roles in changes.items():
        if target == HEAD and is_tied(parent.config):
            problems.append(TIED.format(target))
        elif target not in parent.form:
            problems.append(f"{model.on!r} has no tensor {target}; the adapter was trained on another model")
        elif not problems:
            found = {role: shapes[tensor] for role, tensor in roles.items()}
            problems += _misfits(locked.config, parent, target, found, changes)
    if not problems:
        problems += _missing(locked.config, parent, changes)
    if problems:
        raise RecipeError([f"models.{name}.adapter: {model.place}: {problem}" for problem in problems])
    fold = FoldAdapter({file.name: file.sha256 or file.git_blob for file in locked.files})

    def part(label: str, run: tuple[Tensor, ...]) -> Part:
        computed = any(tensor.action != "copy" for tensor in run)
        code = ADAPTER_CODE if computed else COPY
        return plan_part(name, label, fold if computed else TakeOver("adapter"), run, code)

    return parts_like(parent, set(changes), "adapter", max_bytes, part)


def unsupported(config: dict[str, Any]) -> list[str]:
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


def _misfits(
    config: dict[str, Any],
    parent: Node,
    target: str,
    found: dict[Role, tuple[int, ...]],
    changes: dict[str, dict[Role, str]],
) -> list[str]:
    """Return why an adapter's tensors cannot change a tensor of the model, one line each.

    Args:
        config: The adapter's ``adapter_config.json``.
        parent: The model.
        target: The tensor of the model.
        found: The shapes of the adapter's tensors that change it, by their roles.
        changes: All changes of the adapter.
    """
    module, _, parameter = target.rpartition(".")
    shape = parent.form[target]
    if is_tied(parent.config) and target.endswith(EMBEDDINGS) and "tokens" not in found:
        return [TIED.format(target)]
    roles = found.keys()
    lora = roles - {"base", "magnitude"}
    is_embedding = target.endswith(EMBEDDINGS)
    sides: tuple[Role, Role] = ("embedding_A", "embedding_B") if is_embedding else ("A", "B")
    trained = any(role in changes.get(f"{module}.weight", {}) for role in sides)
    whole = next((found[role] for role in ("base", "saved", "bias") if role in found), shape)
    if whole != shape:
        hint = " (the vocabulary was resized, which is not supported)" if whole[1:] == shape[1:] != () else ""
        return [f"{target}: the adapter has it in the shape {list(whole)}, the model in {list(shape)}{hint}"]
    if parameter == "weight" and len(shape) == MATRIX and lora == set(sides):
        return _misfits_of_lora(config, module, shape if not is_embedding else shape[::-1], sides, found)
    if roles == {"tokens"} and len(shape) == MATRIX:
        return _misfits_of_tokens(config, target, shape, found["tokens"])
    if len(roles) != 1 or not roles <= {"base", "saved", "bias"}:
        return [f"{target}: {', '.join(sorted(roles))} of an adapter do not make a change together"]
    (role,) = roles
    if role == "bias":
        fits = config.get("lora_bias") and trained
        return [] if fits else [f"{target}: it has a LoRA bias without LoRA matrices, or lora_bias is off"]
    saved = config.get("modules_to_save") or []
    bias = config.get("bias") or "none"
    if role == "saved" and _is_saved(module, saved):
        return []
    if parameter == "bias" and not config.get("lora_bias"):
        # PEFT names the bias of a module with LoRA matrices by its base layer
        expected = {
            "none": False,
            "all": role == ("base" if trained else "saved"),
            "lora_only": role == "base",
        }
        if expected[bias] and (role == "saved" or trained):
            return []
    if role == "saved" and target in {HEAD, f"model.{EMBEDDINGS}"} and not trained:
        return []
    return [f"the adapter has a whole tensor {target}, and neither modules_to_save nor bias includes it"]


def _misfits_of_lora(
    config: dict[str, Any],
    module: str,
    shape: tuple[int, ...],
    sides: tuple[Role, Role],
    found: dict[Role, tuple[int, ...]],
) -> list[str]:
    """Return why LoRA matrices do not fit a matrix of a shape (transposed if it is an embedding), one line each."""
    target = f"{module}.weight"
    rows, columns = shape
    lora_a, lora_b = (found[side] for side in sides)
    if len(lora_a) != MATRIX or lora_b != (rows, lora_a[0]) or lora_a[1] != columns:
        shapes = {role: list(size) for role, size in found.items()}
        return [f"{target}: LoRA shapes {shapes} do not fit the matrix of shape {(rows, columns)}"]
    if ("magnitude" in found) != bool(config.get("use_dora")):
        have, setting = ("a", "off") if "magnitude" in found else ("no", "on")
        return [f"{target}: it has {have} lora_magnitude_vector, and use_dora is {setting}"]
    if found.get("magnitude", (rows,)) != (rows,):
        return [f"{target}: lora_magnitude_vector has shape {list(found['magnitude'])}, not [{rows}]"]
    if not is_targeted(config, module):
        return [f"{target}: it has LoRA matrices, and target_modules do not include it"]
    problems = [
        f"{target}: patterns of {key} with several values match it; PEFT takes the first, and the lock keeps no order"
        for key in ("rank_pattern", "alpha_pattern")
        if len(set(matching(config, key, module))) > 1
    ]
    rank = setting_of(config, "rank_pattern", "r", module)
    if not problems and rank != lora_a[0]:
        problems.append(
            f"{target}: {ADAPTER_CONFIG} gives rank {rank:g}, and its tensors have rank {lora_a[0]}, so that the "
            "scale of its change is not known"
        )
    return problems


def _misfits_of_tokens(
    config: dict[str, Any], target: str, shape: tuple[int, ...], found: tuple[int, ...]
) -> list[str]:
    indices = token_indices(config, target.removesuffix(".weight"))
    if indices is None:
        return [f"{target}: it has rows of tokens, and trainable_token_indices do not name the module"]
    if found != (len(indices), shape[1]):
        return [f"{target}: rows of tokens of shape {list(found)} do not fit {len(indices)} tokens"]
    if len(set(indices)) < len(indices) or not all(0 <= index < shape[0] for index in indices):
        return [f"{target}: trainable_token_indices repeat a token, or name one that the model does not have"]
    return []


def _is_saved(module: str, saved: list[str]) -> bool:
    """Return whether a module is in one of those that PEFT trains and saves whole: names end with that of such a module."""
    parts = module.split(".")
    return any(".".join(parts[:count]).endswith(name) for name in saved for count in range(1, len(parts) + 1))


def _missing(config: dict[str, Any], parent: Node, changes: dict[str, dict[Role, str]]) -> list[str]:
    """Return which changes an adapter should make by its settings and has no tensors for, a line for each setting."""
    saved, bias = config.get("modules_to_save") or [], config.get("bias") or "none"
    expected: dict[str, list[str]] = {}
    for target, shape in parent.form.items():
        module, _, parameter = target.rpartition(".")
        if target in changes or (target == HEAD and is_tied(parent.config)):
            continue
        if _is_saved(module, saved):
            expected.setdefault("modules_to_save", []).append(target)
        elif parameter == "weight" and len(shape) == MATRIX and is_targeted(config, module):
            expected.setdefault("target_modules", []).append(target)
        elif token_indices(config, module) and len(shape) == MATRIX:
            expected.setdefault("trainable_token_indices", []).append(target)
        elif parameter == "bias" and (bias == "all" or (bias == "lora_only" and is_targeted(config, module))):
            expected.setdefault("bias", []).append(target)
    if config.get("lora_bias"):
        # PEFT gives every module with LoRA matrices such a bias, and cannot merge it into one without a bias of its own
        trained = [target.removesuffix(".weight") for target, roles in changes.items() if "B" in roles]
        lacking = [f"{module}.bias" for module in trained if "bias" not in changes.get(f"{module}.bias", {})]
        expected |= {"lora_bias": lacking} if lacking else {}
    return [
        f"its {key} include {names[0]}, and it has no tensors for {len(names)} such tensors of the model: the file is "
        "incomplete"
        for key, names in expected.items()
    ]


def _bad_modules(key: str, modules: Any) -> list[str]:
    if isinstance(modules, str) and key != "modules_to_save":
        try:
            re.compile(modules)
        except re.error as error:
            return [f"{key}: {modules!r} is not a regular expression: {error}"]
        return []
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
        try:
            re.compile(pattern)
        except re.error as error:
            problems.append(f"{key}: {pattern!r} is not a regular expression: {error}")
        if not _is_number(value):
            problems.append(f"{key}: {pattern!r}: {value!r} is not a positive number")
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
