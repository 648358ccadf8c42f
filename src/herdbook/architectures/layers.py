"""Where a tensor is in the depth of its model, whatever the model's layers are called."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The first number in a tensor's name is that of its layer: gpt_neox.layers.3.mlp, transformer.h.3.attn, model.layers.3.mlp.experts.7
NUMBER = re.compile(r"\.(\d+)\.")
# Kinds of layers by their attention.
FULL, SLIDING = "full_attention", "sliding_attention"
# The number of layers in configurations of different types.
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


class Depths:
    """The relative depths of a model's tensors: 0 in the first layer of a list of layers, 1 in its last.

    A model may have several lists of layers (an encoder and a decoder), each with a depth of its own. Tensors outside the
    layers, including the last norm and the head, have depth 0; so has a layer that is alone depth 1.

    Source: mergekit (``architecture/auto.py``, ``plan.py``), whose files of architectures have the same lists of layers.
    """

    def __init__(self, tensors: Iterable[str], config: Mapping[str, Any]) -> None:
        self._lengths: dict[str, int] = {}
        for tensor in tensors:
            if match := NUMBER.search(tensor):
                prefix = tensor[: match.start()]
                self._lengths[prefix] = max(self._lengths.get(prefix, 0), int(match[1]) + 1)
        stated = layers_of(config)
        if len(self._lengths) == 1 and stated:
            # beyond the stated ones may be layers that transformers does not load, such as those for predicting more tokens
            self._lengths = {prefix: min(length, stated) for prefix, length in self._lengths.items()}

    def length(self, tensor: str) -> int:
        """Return how many layers the list has that a tensor belongs to; 0 if it is outside the layers."""
        match = NUMBER.search(tensor)
        return self._lengths[tensor[: match.start()]] if match else 0

    def of(self, tensor: str) -> float:
        """Return a tensor's depth, from 0 to 1."""
        match = NUMBER.search(tensor)
        if match is None:
            return 0.0
        last = self._lengths[tensor[: match.start()]] - 1
        return min(1.0, int(match[1]) / last) if last else 1.0


def layers_of(config: Mapping[str, Any]) -> int | None:
    """Return the number of layers that a configuration states, under any of its names; None without one."""
    numbers = (config.get(key) for key in LAYER_COUNTS)
    return next((number for number in numbers if type(number) is int), None)
