"""The hidden states that enter each layer, on disk, so that a trial reruns only its layer and those above."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from herdbook import flock
from herdbook.progress import track

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.inference.forward import LayerwiseModel


class States:
    """The hidden states that enter each layer of a model as it reads windows of one length.

    Each process has a folder of its own: a job that outlives a killed build may still work beside its successor. What
    processes that no longer exist have left is removed.

    Args:
        folder: Where they are stored, in float32: one file per layer, of windows x tokens x hidden x 4 bytes.
        model: The model.
        windows: Token ids, all of one length.
    """

    def __init__(self, folder: Path, model: LayerwiseModel, windows: Sequence[Sequence[int]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        self._folder, self._device = Path(tempfile.mkdtemp(dir=folder)), model.device
        self._lock = _lock(self._folder)
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
        if self._lock is not None:
            os.close(self._lock)
        with suppress(OSError):  # another process works in it
            self._folder.parent.rmdir()

    def _save(self, layer: int, streams: Sequence[torch.Tensor]) -> None:
        np.save(self._path(layer), np.stack([stream[0].cpu().numpy() for stream in streams]))

    def _path(self, layer: int) -> Path:
        return self._folder / f"{layer:04d}.npy"


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; return its descriptor, or None if that is not possible now."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flock.claim(descriptor)
    except OSError:  # a living process has it, or the file system has no locks
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(folder: Path) -> None:
    """Remove the folders in a folder that no living process has locked."""
    for path in folder.iterdir():
        descriptor = _lock(path) if path.is_dir() else None
        if descriptor is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)
