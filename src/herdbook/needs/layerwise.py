"""The memory of passing text through a dense model layer by layer, as ``herdbook.inference.forward`` does, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.architectures.dense import Architecture, layer_of

if TYPE_CHECKING:
    from herdbook.plan import Node

FLOAT32 = 4
PROMPT_BYTES = 64  # what a chat template puts around a prompt
STREAMS = 3  # hidden states: a layer's input, its output, and a copy in transfer between devices or disk
SCORES = 2  # a window's attention scores before and after the softmax, where no fused kernel avoids them
LOGITS = 3  # a window's logits, their logarithms, and a copy


@dataclass(frozen=True)
class Reading:
    """The memory of reading text, in bytes, on the device that runs the model.

    Args:
        layer: A layer's weights.
        head: The embeddings or the output matrix; only one of them is loaded at a time.
        streams: The hidden states of all windows.
        window: What one window needs in addition, at the widest point of a layer or for its logits. On a CPU, each
            thread reads a window of its own.
    """

    layer: int
    head: int
    streams: int
    window: int


def reading(node: Node, windows: int, tokens: int) -> Reading:
    """Return the memory of reading text.

    Args:
        node: A dense model.
        windows: How many windows are read, all of one length.
        tokens: Tokens of a window.
    """
    shape = Architecture.of(node.config, node.name)
    inside = 4 * shape.hidden + 3 * shape.intermediate + SCORES * shape.heads * tokens
    return Reading(
        layer=FLOAT32 * sum(t.elements for name, (_, t) in node.tensors.items() if layer_of(name) == 0),
        head=FLOAT32 * shape.vocabulary * shape.hidden,
        streams=FLOAT32 * STREAMS * windows * tokens * shape.hidden,
        window=FLOAT32 * tokens * max(inside, LOGITS * shape.vocabulary),
    )
