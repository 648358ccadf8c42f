"""The control: the mixture at full width with shuffled experts, whose loss is that of a file in which the experts are lost.

A reader that fills up experts with random weights, or a writer that mixes up their matrices, leaves a model whose attention still
writes text. In each expert of the control, the rows of one matrix are moved by one, so that its neurons have each other's weights:
the experts compute nothing of use, with numbers of the same size.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from herdbook.inference.tensors import CheckpointFolder

if TYPE_CHECKING:
    import torch

_UP = re.compile(r"\.(?:experts\.\d+|shared_experts?)\.(?:w3|up_proj)\.weight$")


class ShuffledExperts(CheckpointFolder):
    """The tensors of a mixture's folder, with the neurons of its experts shuffled."""

    def stored(self, name: str) -> torch.Tensor:
        """Return a tensor in its own dtype; of the matrices that multiply what an expert's gates let through, with its rows moved by one."""
        tensor = super().stored(name)
        return tensor.roll(1, 0) if _UP.search(name) else tensor
