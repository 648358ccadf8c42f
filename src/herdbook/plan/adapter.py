"""Planning an adapter: its matrices are folded into those of the model, everything else is copied."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from herdbook.architectures.lora import matching, setting_of
from herdbook.errors import RecipeError
from herdbook.lock import ADAPTER_CONFIG
from herdbook.plan.code import COPY, Code
from herdbook.plan.operation import FoldAdapter, TakeOver
from herdbook.plan.part import parts_like, plan_part

if TYPE_CHECKING:
    from herdbook.lock import LockedAdapter
    from herdbook.plan.model import Node, Part, Tensor
    from herdbook.recipe import Adapter

ADAPTER_CODE = Code(("herdbook.steps.adapter.step",))
MATRIX = 2  # dimensions
# Settings of training, of the computer, or of options that are off: they do not affect what an adapter's tensors mean.
WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
UNDERSTOOD = frozenset({"alpha_pattern", "lora_alpha", "peft_type", "r", "rank_pattern", "use_rslora"})
# Initializations after which the model's own weights are as they were.
KEPT_BASE = ("gaussian", "eva", "orthogonal")
LORA_TENSOR = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")


def plan_adapter(
    name: str, model: Adapter, locked: LockedAdapter, parent: Node, max_bytes: int
) -> tuple[Part, ...]:
    """Return the parts of a model with an adapter folded in.

    Raises:
        RecipeError: If the adapter does not fit the model, or is of a kind that cannot be folded in exactly.
    """
    problems = unsupported(locked.config)
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in locked.tensors:
        match = LORA_TENSOR.match(tensor.name)
        if not match:
            problems.append(f"tensor {tensor.name} is not a LoRA matrix; only LoRA adapters can be folded in")
            continue
        sides.setdefault(match["module"] + ".weight", {})[match["side"]] = tensor.shape
    for target, shapes in sides.items():
        if target not in parent.form:
            problems.append(f"{model.on!r} has no tensor {target}; the adapter was trained on another model")
            continue
        rows, columns = parent.form[target]
        if set(shapes) != {"A", "B"} or shapes["B"] != (rows, shapes["A"][0]) or shapes["A"][1] != columns:
            problems.append(
                f"{target}: LoRA shapes {shapes} do not fit the matrix of shape {(rows, columns)}"
            )
            continue
        if problems:
            continue
        module = target.removesuffix(".weight")
        problems += [
            f"{target}: patterns of {key} with several values match it; PEFT takes the first, and the lock keeps no order"
            for key in ("rank_pattern", "alpha_pattern")
            if len(set(matching(locked.config, key, module))) > 1
        ]
        rank = setting_of(locked.config, "rank_pattern", "r", module)
        if not problems and rank != shapes["A"][0]:
            problems.append(
                f"{target}: {ADAPTER_CONFIG} gives rank {rank:g}, and its tensors have rank {shapes['A'][0]}, so that the "
                "scale of its change is not known"
            )
    missing = _untrained(locked.config, parent, set(sides))
    if missing and not problems:
        problems.append(
            f"its target_modules include {missing[0]}, and it has no tensors for {len(missing)} such matrices: the file is "
            "incomplete"
        )
    if problems:
        raise RecipeError([f"models.{name}.adapter: {model.place}: {problem}" for problem in problems])
    fold = FoldAdapter({file.name: file.sha256 or file.git_blob for file in locked.files})

    def part(label: str, run: tuple[Tensor, ...]) -> Part:
        computed = any(tensor.action != "copy" for tensor in run)
        code = ADAPTER_CODE if computed else COPY
        return plan_part(name, label, fold if computed else TakeOver("adapter"), run, code)

    return parts_like(parent, set(sides), "adapter", max_bytes, part)


def unsupported(config: dict[str, Any]) -> list[str]:
    """Return the settings of an adapter that rule out folding it in exactly, one line each.

    Only settings that are known are accepted; any other may change what the weights mean, unless it is empty or off.

    Source: PEFT's ``LoraConfig``, whose fields are the keys of ``adapter_config.json``.
    """
    problems = []
    if str(config.get("peft_type", "")).upper() != "LORA":
        problems.append(f"peft_type {config.get('peft_type')!r} is not LORA")
    for key, value in config.items():
        if key in WITHOUT_EFFECT or key in UNDERSTOOD or not value:
            continue
        if key == "init_lora_weights":
            if value is not True and value not in KEPT_BASE:
                problems.append(
                    f"init_lora_weights {value!r}: this initialization also changes the model's weights, or is unknown. "
                    "Convert the adapter to a plain LoRA: PEFT's save_pretrained(..., "
                    "path_initial_model_for_weight_conversion=...)"
                )
        elif key == "bias":
            if value != "none":
                problems.append("trained biases are not supported")
        else:
            problems.append(f"{key} is not supported")
    problems += [
        f"{key} {config.get(key)!r} is not a positive number"
        for key in ("r", "lora_alpha")
        if not _is_number(config.get(key))
    ]
    for key in ("rank_pattern", "alpha_pattern"):
        problems += _bad_patterns(key, config.get(key) or {})
    return problems


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


def _untrained(config: dict[str, Any], parent: Node, trained: set[str]) -> list[str]:
    """Return the matrices that an adapter should change by its ``target_modules``, and has no tensors for.

    They are determined only by a plain list of modules, without a choice of layers.
    """
    targets = config.get("target_modules")
    if not isinstance(targets, list) or config.get("layers_to_transform") or config.get("exclude_modules"):
        return []
    ends = tuple(f".{target}.weight" for target in targets)
    return [
        name
        for name, shape in parent.form.items()
        if len(shape) == MATRIX and name not in trained and f".{name}".endswith(ends)
    ]
