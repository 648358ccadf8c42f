"""Facts from a dense decoder's configuration that planning needs, and the names of its tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from herdbook.architectures.defaults import default_of
from herdbook.errors import RecipeError

DEFAULT_THETA = 10000.0  # of most types, if config.json contains none
LAYER = re.compile(r"^model\.layers\.(\d+)\.(.+)$")

# The attention and MLP matrices of a Llama or Mistral layer, by their names inside the layer.
MATRICES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
# One form under two names: models of these types can be merged with each other.
ONE_FORM = {"llama", "mistral"}


@dataclass(frozen=True)
class Architecture:
    """Widths and counts of a model of the Llama family, from its ``config.json``."""

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
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
                vocabulary=config["vocab_size"],
            )
        except KeyError as error:
            raise RecipeError(f"models.{model}: its config.json lacks {error.args[0]!r}") from error


def layer_of(name: str) -> int | None:
    """Return the number of the layer that a tensor belongs to, or None for embeddings, last norm and head."""
    match = LAYER.match(name)
    return int(match[1]) if match else None


def matrix_of(name: str) -> str | None:
    """Return a matrix's name inside its layer, such as ``mlp.down_proj``; None for other tensors."""
    match = LAYER.match(name)
    return match[2].removesuffix(".weight") if match and match[2].endswith(".weight") else None


def rope_of(config: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """Return base and scaling of the rotary embeddings, from configurations of any version of transformers."""
    rope = dict(config.get("rope_parameters") or {})
    theta = rope.pop("rope_theta", None) or config.get("rope_theta")
    theta = theta or default_of(config.get("model_type"), "rope_theta") or DEFAULT_THETA
    scaling = {**(config.get("rope_scaling") or {}), **rope}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return float(theta), scaling if kind != "default" else None
