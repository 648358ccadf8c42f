"""What it takes to pass text through a dense model layer by layer, as ``herdbook.inference.forward`` does: bytes, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.architectures.dense import Architecture, layer_of

if TYPE_CHECKING:
    from herdbook.plan import Node

FLOAT32 = 4
STREAMS = 3  # hidden states: what enters a layer, what leaves it, and a copy on its way from or to somewhere
SCORES = 2  # a window's attention before and after the softmax, where no kernel goes without
LOGITS = 3  # a window's, their logarithms, and a copy


@dataclass(frozen=True)
class Reading:
    """What reading takes, where the model is run.

    Args:
        layer: A layer's weights.
        head: The embeddings or the output matrix; only one of them is ever whole.
        streams: The hidden states of all windows.
        window: What one window has beside, in the widest place of a layer or in its logits. On a CPU, as many windows
            pass at once as there are threads.
    """

    layer: int
    head: int
    streams: int
    window: int


def reading(node: Node, windows: int, tokens: int) -> Reading:
    """Return what reading text takes.

    Args:
        node: A dense model.
        windows: How many windows are read, all of one length.
        tokens: How long each is.
    """
    shape = Architecture.of(node.config, node.name)
    inside = 4 * shape.hidden + 3 * shape.intermediate + SCORES * shape.heads * tokens
    return Reading(
        layer=FLOAT32 * sum(made.elements for name, (_, made) in node.tensors.items() if layer_of(name) == 0),
        head=FLOAT32 * shape.vocabulary * shape.hidden,
        streams=FLOAT32 * STREAMS * windows * tokens * shape.hidden,
        window=FLOAT32 * tokens * max(inside, LOGITS * shape.vocabulary),
    )
