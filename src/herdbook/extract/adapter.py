"""The form of an extracted adapter: the names of its tensors and its settings, which follow from its record."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from herdbook.sources import purl

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from herdbook.extract.record import Matrix, Source, Whole


def factor_names(name: str) -> tuple[str, str]:
    """Return the names under which PEFT stores the LoRA matrices A and B of a weight."""
    inside = f"base_model.model.{name.removesuffix('.weight')}"
    return f"{inside}.lora_A.weight", f"{inside}.lora_B.weight"


def stored_name(name: str, matrices: Collection[str]) -> str:
    """Return the name under which PEFT stores a whole tensor.

    Args:
        name: Its name in the model.
        matrices: The weights that have LoRA matrices; beside them, a bias is that of their base layer.
    """
    module, _, parameter = name.rpartition(".")
    base_layer = "base_layer." if f"{module}.weight" in matrices else ""
    return f"base_model.model.{module}.{base_layer}{parameter}"


def settings(base: Source, matrices: Mapping[str, Matrix], whole: Whole) -> dict[str, Any]:
    """Return the content of ``adapter_config.json``, with which the scale of every product is 1.

    Modules are listed by their whole names, since equal matrices have no LoRA. Of a folder, only its name is stated.

    Source: PEFT's ``LoraConfig``.
    """
    ranks = {name.removesuffix(".weight"): matrix.rank for name, matrix in matrices.items()}
    counts = Counter(ranks.values())
    usual = max(counts, key=lambda rank: (counts[rank], rank))
    others = {module: rank for module, rank in sorted(ranks.items()) if rank != usual}
    commit = purl.parse(base.uri)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": commit.repo if commit else base.uri.removeprefix("folder:"),
        "revision": commit.commit if commit else None,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "modules_to_save": sorted({name.rpartition(".")[0] for name in whole.saved}) or None,
        "bias": "all" if whole.biases else "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }
