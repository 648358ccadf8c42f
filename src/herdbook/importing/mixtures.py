"""Mixtures: a configuration of mergekit-moe becomes an entry of the recipe, with mergekit's semantics.

The build then reproduces mergekit's output bit for bit where that is possible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.architectures.mergekit import EQUAL_ROWS
from herdbook.architectures.mixtures import FAMILIES
from herdbook.humanize import did_you_mean
from herdbook.importing.keys import EXPERT_KEYS, MIXTURE_KEYS
from herdbook.layout import WEIGHTS_INDEX
from herdbook.recipe.moe import DRAWN_GATES, MERGEKIT_GATES

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.importing.configuration import Expert, MixtureConfiguration
    from herdbook.importing.models import Models

NEWEST = "mergekit-0.1.5"
MERGEKIT_MOE = "mergekit-moe"
# mergekit's names of the families, in its order; `architecture` is the beginning of a name, in upper or lower case.
ARCHITECTURES = {"mixtral": "mixtral", "deepseek moe": "deepseek", "qwen moe": "qwen2", "qwen3 moe": "qwen3"}
MEAN_UNTIL = "2024-01-03"  # commit 7fbe2b4
PER_TOKEN = 2
DTYPES = ("bfloat16", "float16", "float32")


def mixture(configuration: MixtureConfiguration, name: str, models: Models, file: Path) -> dict[str, Any]:
    """Return the entry of a recipe that a mixture becomes.

    Args:
        configuration: The mixture.
        name: Its name in the recipe.
        models: The recipe's models, to which the experts are added.
        file: The configuration's file; an index of weights beside it names the version of mergekit.
    """
    value, notes = configuration.value, configuration.value.notes
    at = ("models", name, "moe")
    value.unknown(MIXTURE_KEYS, MERGEKIT_MOE, *at)
    gate = "hidden" if configuration.gate == "hidden_last" else configuration.gate
    if gate not in MERGEKIT_GATES:
        value.child("gate_mode").refuse(
            f"mergekit has no {gate!r}; there are {', '.join(MERGEKIT_GATES)}{did_you_mean(gate, MERGEKIT_GATES)}"
        )
    if configuration.dtype and configuration.dtype not in DTYPES:
        value.child("dtype").refuse(
            f"{configuration.dtype!r} is not one of {', '.join(DTYPES)}{did_you_mean(configuration.dtype, DTYPES)}"
        )
    entry: dict[str, Any] = {
        "base": models.name(configuration.base, value.child("base_model")),
        "semantics": _semantics(models, file, *at, "semantics"),
        "gate": gate,
        "experts_per_token": configuration.per_token or PER_TOKEN,
        "experts": [_expert(expert, gate, models, at) for expert in configuration.experts],
    }
    if configuration.per_token is None:
        notes.assume(f"experts_per_token: {PER_TOKEN}, mergekit's default", *at, "experts_per_token")
    elif configuration.per_token > len(configuration.experts) and not notes.problems:
        value.child("experts_per_token").refuse(
            f"cannot choose {configuration.per_token} of {len(configuration.experts)} experts"
        )
    if configuration.shared:
        entry["shared_experts"] = [
            _expert(expert, gate, models, at, routed=False) for expert in configuration.shared
        ]
    if family := _family(configuration, gate, at):
        entry["family"] = family
    if configuration.dtype:
        entry["dtype"] = configuration.dtype
    else:
        notes.assume("dtype: the base's, as the configuration names none", *at, "gate")
    _say_what_is_drawn(configuration, gate, at)
    return {"moe": entry}


def _expert(
    expert: Expert, gate: str, models: Models, at: tuple[str, ...], *, routed: bool = True
) -> dict[str, Any]:
    expert.value.unknown(EXPERT_KEYS, MERGEKIT_MOE, *at)
    if routed and not expert.value.content.get("positive_prompts") and gate not in DRAWN_GATES:
        expert.value.refuse(f"gate {gate!r} needs at least one prompt (`positive_prompts`)")
    entry: dict[str, Any] = {"model": models.name(expert.model, expert.value.child("source_model"))}
    prompts = {"prompts": expert.prompts, "negative_prompts": expert.negative_prompts}
    if gate not in DRAWN_GATES:
        entry |= {key: list(texts) for key, texts in prompts.items() if texts}
    elif any(prompts.values()):
        expert.value.notes.assume(
            f"prompts: left out; gate {gate} draws routers at random and reads none", *at, "experts"
        )
    if expert.noise is not None:
        entry["noise_scale"] = expert.noise
    given = expert.value.get("noise_scale")
    if given is not None and expert.noise is None:
        expert.value.notes.assume(f"{given.key}: left out; 0 is no noise", *at, "experts")
    if expert.scale is not None:
        entry["residual_scale"] = expert.scale
    return entry


def _family(configuration: MixtureConfiguration, gate: str, at: tuple[str, ...]) -> str | None:
    """Return the family that mergekit writes, or None if it follows from the base."""
    value, shared = configuration.value, configuration.shared
    prompted = any(expert.prompts or expert.negative_prompts for expert in shared) and gate not in DRAWN_GATES
    if not configuration.architecture:
        if not prompted:
            return None
        value.notes.assume(
            "family: qwen2, since the shared expert has prompts; of mergekit's families with shared experts, DeepSeek takes none",
            *at,
            "family",
        )
        return "qwen2"
    given = value.child("architecture")
    prefix = configuration.architecture.lower().strip()
    matches = [family for name, family in ARCHITECTURES.items() if name.startswith(prefix)]
    if not matches:
        given.refuse(
            f"mergekit-moe has no {configuration.architecture!r}; there are {', '.join(ARCHITECTURES)}"
            f"{did_you_mean(prefix, ARCHITECTURES)}"
        )
        return None
    fitting = [name for name in matches if _fits(name, len(shared), prompted=prompted)]
    if prompted and not fitting and "deepseek" in matches:
        value.child("shared_experts").refuse(
            "the shared expert has prompts, and mergekit's DeepSeek takes none for it. Leave out the prompts, or `architecture`, "
            "which gives Qwen-MoE"
        )
    return (fitting or matches)[0]


def _fits(name: str, shared: int, *, prompted: bool) -> bool:
    families = [
        family for family in FAMILIES.values() if family.name == name and shared in family.shared_counts
    ]
    return any(family.shared_gate or not prompted for family in families)


def _semantics(models: Models, file: Path, *at: str) -> str:
    """Return the semantics to set, and note what is assumed of the version of mergekit."""
    version = None
    index = file.parent / WEIGHTS_INDEX
    if index.is_file():
        try:
            version = jsonio.load(index.read_bytes(), limits.DOCUMENT)["metadata"].get("mergekit_version")
        except (ValueError, KeyError, TypeError, AttributeError):
            version = None
    if version:
        era = f"the model was made with mergekit {version}, according to its index"
    else:
        era = "the version of mergekit is unknown"
    models.notes.assume(
        f"semantics: {era}; the formulas of {NEWEST.removeprefix('mergekit-')} are used, which are those of all versions "
        f"since 2024-04-15. From {EQUAL_ROWS[0]} to {EQUAL_ROWS[1]} mergekit wrote routers with equal rows, and until "
        f"{MEAN_UNTIL} `hidden` was the mean over a prompt: a model of that time has different routers (check with "
        "`herdbook routers`)",
        *at,
    )
    return "mergekit-0.1.4" if version == "0.1.4" else NEWEST


def _say_what_is_drawn(configuration: MixtureConfiguration, gate: str, at: tuple[str, ...]) -> None:
    noisy = any(expert.noise for expert in (*configuration.experts, *configuration.shared))
    if noisy or gate in DRAWN_GATES:
        what = " and ".join(["the routers"] * (gate in DRAWN_GATES) + ["the noise"] * noisy)
        configuration.value.notes.assume(
            f"seed: 0, for {what}; mergekit draws in the order of writing, so its draw cannot be reproduced",
            *at,
            "gate",
        )
