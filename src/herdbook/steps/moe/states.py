"""Hidden states on disk: another prompt, gate or mixture does not make a base read the same text twice.

A sequence passes alone, so its states depend on the model, its token ids and our code, and are stored under a digest of these. A
file may be deleted at any time; what is missing or damaged is recomputed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from herdbook.files import scratch
from herdbook.inference.forward import hidden_states, mlp_inputs
from herdbook.key import digest
from herdbook.plan.code import TOKENIZERS, Code

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Kind = Literal["stream", "mlp"]
READ_CODE = Code("hidden-states", ("herdbook.inference.forward",), packages=TOKENIZERS)
DIGEST_BYTES = 32


@dataclass(frozen=True)
class StateStore:
    """The states of one model.

    Args:
        folder: Where they are, or None to keep none. Several processes may use it at the same time.
    """

    folder: Path | None

    def read(
        self, kind: Kind, model: Path, sequences: Sequence[Sequence[int]], layers: int
    ) -> Iterator[list[torch.Tensor]]:
        """Yield for each layer one tensor of shape ``(tokens, hidden)`` per sequence, float32.

        Args:
            kind: ``stream``, the inputs of the layers; or ``mlp``, those of their MLPs.
            model: The model's folder.
            sequences: Token ids.
            layers: The number of layers.

        Raises:
            StepError: If the model cannot read a sequence.
        """
        compute = hidden_states if kind == "stream" else mlp_inputs
        if self.folder is None:
            yield from compute(model, sequences)
            return
        paths = {tuple(ids): self.folder / f"{_key(kind, ids)}.states" for ids in sequences}
        stored = {ids: found for ids, path in paths.items() if (found := _stored(path)) is not None}
        missing = [ids for ids in paths if ids not in stored]
        if not missing:
            for layer in range(layers):
                yield [_at(stored[tuple(ids)], layer) for ids in sequences]
            return
        with scratch(self.folder / "reading") as folder:
            files = {ids: _File(folder / paths[ids].name, layers) for ids in missing}
            for layer, states in enumerate(compute(model, missing)):
                new = dict(zip(missing, states, strict=True))
                for ids, own in new.items():
                    files[ids].add(own.numpy())
                yield [
                    new[tuple(ids)] if tuple(ids) in new else _at(stored[tuple(ids)], layer)
                    for ids in sequences
                ]
            for ids, file in files.items():
                file.move(paths[ids])


def _key(kind: Kind, ids: Sequence[int]) -> str:
    return digest({"kind": kind, "ids": list(ids), "code": READ_CODE.installed().json})


def _at(states: np.ndarray, layer: int) -> torch.Tensor:
    return torch.from_numpy(np.array(states[layer]))


def _stored(path: Path) -> np.ndarray | None:
    """Return the states in a file, of shape ``(layers, tokens, hidden)``, which are not in memory; None if it is not whole."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size - DIGEST_BYTES
            found = hashlib.sha256()
            while size > 0 and (data := file.read(min(size, 1 << 20))):
                found.update(data)
                size -= len(data)
            if file.read() != found.digest():
                return None
        states: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return states


class _File:
    """A file in the making: NumPy's format, then a digest of it. It is open only while it grows, since many may exist."""

    def __init__(self, path: Path, layers: int) -> None:
        self._path, self._layers = path, layers
        self._digest = hashlib.sha256()

    def add(self, states: np.ndarray) -> None:
        """Add the states of the next layer."""
        if not self._path.exists():
            header = {"descr": "<f4", "fortran_order": False, "shape": (self._layers, *states.shape)}
            with self._path.open("w+b") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.seek(0)
                self._digest.update(file.read())
        with self._path.open("ab") as file:
            file.write(data := np.ascontiguousarray(states, dtype="<f4").tobytes())
        self._digest.update(data)

    def move(self, path: Path) -> None:
        """Add the digest, and move the file to its place."""
        with self._path.open("ab") as file:
            file.write(self._digest.digest())
        self._path.replace(path)
