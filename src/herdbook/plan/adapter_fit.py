"""Whether an adapter's tensors are those that its settings imply, and fit the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.form import HEAD
from herdbook.architectures.lora import is_targeted, matching, setting_of, token_indices
from herdbook.architectures.meaning import is_tied
from herdbook.lock import ADAPTER_CONFIG

if TYPE_CHECKING:
    from herdbook.architectures.lora import AdapterConfig, Role
    from herdbook.plan.model import Node

MATRIX = 2  # dimensions
EMBEDDINGS = "embed_tokens.weight"
TIED = "it changes {}, which the model uses both as embeddings and as output head; PEFT trains one use alone"


def misfits(
    config: AdapterConfig,
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
    config: AdapterConfig,
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
    config: AdapterConfig, target: str, shape: tuple[int, ...], found: tuple[int, ...]
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


def missing(config: AdapterConfig, parent: Node, changes: dict[str, dict[Role, str]]) -> list[str]:
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
