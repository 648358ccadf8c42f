"""The settings of an adapter: which are understood, and which rule out folding it in exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from herdbook.architectures.patterns import wrong_pattern
from herdbook.faults import told
from herdbook.lock import ADAPTER_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(min_length=1)]


class _Settings(BaseModel):
    """The types of the settings that are understood; null stands for one that is missing.

    Source: PEFT's ``LoraConfig``, whose fields are the keys of ``adapter_config.json``.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    alpha_pattern: dict[str, Positive] | None = None
    bias: Literal["none", "all", "lora_only"] | None = None
    exclude_modules: str | list[Name] | None = None
    init_lora_weights: bool | str | None = None
    layers_to_transform: int | list[int] | None = None
    lora_alpha: Positive
    lora_bias: bool | None = None
    modules_to_save: list[Name] | None = None
    peft_type: str
    r: Positive
    rank_pattern: dict[str, Positive] | None = None
    target_modules: str | list[Name] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    use_dora: bool | None = None
    use_rslora: bool | None = None


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
UNDERSTOOD = frozenset(_Settings.model_fields)
# Initializations after which the model's own weights are as they were.
KEPT_BASE = ("gaussian", "eva", "orthogonal")


def unsupported(config: Mapping[str, Any]) -> list[str]:
    """Return the settings of an adapter that rule out folding it in exactly, one line each.

    Only settings that are known are accepted; any other may change what the weights mean, unless it is empty or off.

    Source: PEFT's ``LoraConfig``, whose fields are the keys of ``adapter_config.json``.
    """
    if str(config.get("peft_type")).upper() != "LORA":
        return [f"peft_type {config.get('peft_type')!r} is not LORA"]
    try:
        settings = _Settings.model_validate(dict(config))
    except ValidationError as error:
        return [f"{ADAPTER_CONFIG}: {problem}" for problem in told(error, config)]
    problems = [
        f"{key} is not supported"
        for key, value in config.items()
        if value and key not in WITHOUT_EFFECT and key not in UNDERSTOOD
    ]
    start = settings.init_lora_weights
    if start not in (None, True, False, *KEPT_BASE):
        problems.append(
            f"init_lora_weights {start!r}: this initialization also changes the model's weights, or is unknown. "
            "Convert the adapter to a plain LoRA: PEFT's save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)"
        )
    return [*problems, *_wrong_patterns(settings)]


def _wrong_patterns(settings: _Settings) -> Iterator[str]:
    for key in ("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"):
        value = getattr(settings, key) or ()
        for pattern in [value] if isinstance(value, str) else value if isinstance(value, dict) else ():
            if problem := wrong_pattern(pattern):
                yield f"{key}: {pattern[:200]!r} is not a regular expression: {problem}"
