"""The hidden states that enter each layer, on disk, so that a trial reruns only its layer and those above."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import torch

from herdbook.progress import track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from herdbook.inference.forward import LayerwiseModel


class States:
    """The hidden states that enter each layer of a model as it reads windows of one length.

    Args:
        folder: Where they are stored, in float32: one file per layer, of windows x tokens x hidden x 4 bytes.
        model: The model.
        windows: Token ids, all of one length.
    """

    def __init__(self, folder: Path, model: LayerwiseModel, windows: Sequence[Sequence[int]]) -> None:
        self._folder, self._device = folder, model.device
        folder.mkdir(parents=True, exist_ok=True)
        streams = model.embed(windows)
        self._save(0, streams)
        with track("reading calibration text", model.layers) as advance:
            for number in range(model.layers):
                with model.layer(number) as module:
                    streams = model.run(module, streams)
                self._save(number + 1, streams)
                advance()

    def entering(self, layer: int) -> list[torch.Tensor]:
        """Return the states that enter a layer, or leave the last one: for each window, shape ``(1, tokens, hidden)``."""
        stored = np.load(self._path(layer), mmap_mode="r")
        return [torch.from_numpy(np.array(window)).unsqueeze(0).to(self._device) for window in stored]

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _save(self, layer: int, streams: Sequence[torch.Tensor]) -> None:
        np.save(self._path(layer), np.stack([stream[0].cpu().numpy() for stream in streams]))

    def _path(self, layer: int) -> Path:
        return self._folder / f"{layer:04d}.npy"
