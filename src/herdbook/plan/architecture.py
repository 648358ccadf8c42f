"""Facts of a dense decoder's configuration that planning rests on, and the names of its tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from herdbook.errors import RecipeError

SUPPORTED = ("llama", "mistral")
LAYER = re.compile(r"^model\.layers\.(\d+)\.(.+)$")


@dataclass(frozen=True)
class Architecture:
    """Widths and counts of a model of the Llama family, from its ``config.json``."""

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int

    @classmethod
    def of(cls, config: dict[str, Any], model: str) -> Architecture:
        """Read the facts from a configuration.

        Raises:
            RecipeError: If a fact is missing.
        """
        try:
            return cls(
                model_type=config["model_type"],
                layers=config["num_hidden_layers"],
                hidden=config["hidden_size"],
                intermediate=config["intermediate_size"],
                heads=config["num_attention_heads"],
                key_value_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
                vocabulary=config["vocab_size"],
            )
        except KeyError as error:
            raise RecipeError(f"models.{model}: its config.json does not say {error.args[0]!r}") from error


def layer_of(name: str) -> int | None:
    """Return the number of the layer that a tensor belongs to, or None for embeddings, last norm and head."""
    found = LAYER.match(name)
    return int(found[1]) if found else None


def matrix_of(name: str) -> str | None:
    """Return a layer's matrix by its name inside the layer, such as ``mlp.down_proj``; None for all else."""
    found = LAYER.match(name)
    return found[2].removesuffix(".weight") if found and found[2].endswith(".weight") else None
