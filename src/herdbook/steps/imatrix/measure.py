"""The inputs of all matrices of a model as it reads texts: sums of squares, with one layer's weights in memory.

A sum is formed for each sequence, or for each piece of the tokens that an expert gets, and these are added in order, in float64:
so it depends neither on the number of threads nor on how they take turns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from herdbook.architectures.mixtures import BY_MODEL_TYPE, MLP
from herdbook.inference.forward import LayerwiseModel, check_sequences
from herdbook.inference.linear_inputs import LinearInputs
from herdbook.inference.mixture import ROWS, LayerwiseMixture, inner
from herdbook.layout import CONFIG
from herdbook.progress import track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from herdbook.architectures.mixtures import Place


@dataclass
class Sums:
    """The inputs of matrices so far, by the name of a matrix's tensor in the safetensors.

    Args:
        squares: The sum of the squares of each column.
        counts: How many inputs.
    """

    squares: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, squares: NDArray[np.float64], count: int) -> None:
        """Add the squares of some inputs of a matrix."""
        before = self.squares.get(name)
        self.squares[name] = squares if before is None else before + squares
        self.counts[name] = self.counts.get(name, 0) + count


class _Watched(LayerwiseModel):
    """Keeps what each stream does to the linear modules of a layer."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.seen: dict[int, dict[str, NDArray[np.float64]]] = {}

    def apply(self, module: torch.nn.Module, stream: torch.Tensor) -> torch.Tensor:
        """Pass one stream through a layer."""
        squares: dict[str, NDArray[np.float64]] = {}
        names = [name for name, each in module.named_modules() if isinstance(each, torch.nn.Linear)]
        with LinearInputs(module, names, lambda name, rows: squares.update({name: _squares(rows)})):
            output = super().apply(module, stream)
        self.seen[id(stream)] = squares
        return output


class _WatchedMixture(_Watched, LayerwiseMixture):
    """Keeps that, and what tokens do to the experts."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.sums = Sums()

    def expert(self, layer: int, place: Place, inputs: torch.Tensor) -> torch.Tensor:
        """Pass the inputs of an expert through it."""
        gate, up, down = self.matrices(layer, place)

        def passed(rows: torch.Tensor) -> tuple[torch.Tensor, NDArray[np.float64], NDArray[np.float64]]:
            within = inner(rows, gate, up)
            return within @ down.T, _squares(rows), _squares(within)

        pieces = self.each(passed, inputs.split(ROWS))
        for matrix in MLP:
            squares = sum(after if matrix == MLP[2] else before for _, before, after in pieces)
            self.sums.add(self.family.expert(layer, place, matrix), np.asarray(squares), len(inputs))
        return torch.cat([output for output, _, _ in pieces])


def _squares(rows: torch.Tensor) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = rows.to(torch.float64).square().sum(dim=0).numpy()
    return squares


def measure(folder: Path, sequences: Sequence[Sequence[int]], threads: int = 1) -> Sums:
    """Pass sequences through a model, and return the inputs of the matrices of all layers; embeddings and output matrix have none.

    Args:
        folder: The model, as transformers loads it.
        sequences: Token ids.
        threads: How many sequences, or blocks of an expert's input, are processed at the same time; it does not affect the result.

    Raises:
        StepError: If the model cannot read a sequence.
        CheckpointError: If a tensor is missing or damaged.
    """
    torch.set_num_threads(
        1
    )  # one thread for each sequence, so that the result does not depend on their number
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("model_type") in BY_MODEL_TYPE:
        mixture = _WatchedMixture(folder, threads)
        model: _Watched = mixture
        sums = mixture.sums
    else:
        model, sums = _Watched(folder, threads=threads), Sums()
    check_sequences(sequences, model.config, "text")
    streams = model.embed(sequences)
    with track(f"imatrix {folder.name}", model.layers) as advance:
        for number in range(model.layers):
            outputs = _passed(model, number, streams)
            for stream in streams:
                for name, squares in model.seen.pop(id(stream)).items():
                    sums.add(f"model.layers.{number}.{name}.weight", squares, stream.shape[1])
            streams = outputs
            advance()
    return sums


def _passed(model: _Watched, number: int, streams: list[torch.Tensor]) -> list[torch.Tensor]:
    if isinstance(model, _WatchedMixture):
        return model.route(number, streams)[1]
    with model.layer(number) as module:
        return model.run(module, streams)
