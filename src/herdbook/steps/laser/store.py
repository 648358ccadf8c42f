"""Decompositions on disk, shared by all rules, ranks, trials and recipes.

A decomposition depends only on the matrix's bytes and our code, so it is stored under a digest of these: the same matrix in
another model or recipe is not decomposed a second time. Each has two files: the singular values (small, worth keeping) and
the vectors (a square of the smaller side in float64). Either may be deleted at any time; missing or damaged files are
recomputed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from herdbook.errors import StepError
from herdbook.files import atomic_writer
from herdbook.key import digest
from herdbook.plan.code import TOKENIZERS, Code
from herdbook.steps.laser.decompose import Decomposition, decompose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

DECOMPOSE_CODE = Code("decompose", ("herdbook.steps.laser.decompose",))
WHITEN_CODE = Code(
    "decompose-whitened",
    ("herdbook.inference.forward", "herdbook.inference.text", "herdbook.steps.laser.whiten"),
    packages=TOKENIZERS,
)
DIGEST = "vectors_sha256"


@dataclass(frozen=True)
class DecompositionStore:
    """A folder of decompositions.

    Args:
        folder: The folder. Several processes may use it at the same time.
        device: Where missing decompositions are computed. Results of different kinds of device are stored separately.
    """

    folder: Path
    device: str = "cpu"

    def decomposition(
        self,
        matrix: torch.Tensor,
        sha256: str,
        calibration: str = "",
        compute: Callable[[], Decomposition] | None = None,
    ) -> Decomposition:
        """Return a matrix's decomposition from the folder; if it is missing, compute and store it.

        Args:
            matrix: The matrix.
            sha256: Digest of its bytes.
            calibration: Digest of model and text if the decomposition is whitened, otherwise empty.
            compute: Computes the decomposition; None for ``decompose``.

        Raises:
            StepError: If a whitened decomposition is missing and ``compute`` is None.
        """
        key = self._key(matrix, sha256, calibration)
        decomposition = self._read(key)
        if decomposition is None:
            if compute is None and calibration:
                raise StepError(f"{self._path(key, 'vectors')}: is missing or damaged. Rerun the step.")
            decomposition = decompose(matrix, self.device) if compute is None else compute()
            self._write(key, decomposition, {"tensor_sha256": sha256, "calibration": calibration})
        return decomposition

    def has(self, matrix: torch.Tensor, sha256: str, calibration: str) -> bool:
        """Return whether a decomposition exists and is intact."""
        return self._read(self._key(matrix, sha256, calibration)) is not None

    def values(self, matrix: torch.Tensor, sha256: str, calibration: str = "") -> np.ndarray:
        """Return the values of a decomposition, descending; vectors are not read if the values are stored.

        Raises:
            StepError: If a whitened decomposition is missing.
        """
        stored = _values(self._path(self._key(matrix, sha256, calibration), "values"))
        return self.decomposition(matrix, sha256, calibration).values if stored is None else stored[0]

    def _key(self, matrix: torch.Tensor, sha256: str, calibration: str) -> str:
        return digest(
            {
                "tensor": sha256,
                "dtype": str(matrix.dtype),
                "shape": list(matrix.shape),
                "device": self.device.partition(":")[0],
                "calibration": calibration,
                "code": (WHITEN_CODE if calibration else DECOMPOSE_CODE).installed().json,
            }
        )

    def _path(self, key: str, what: str) -> Path:
        return self.folder / key[:2] / f"{key}.{what}.safetensors"

    def _read(self, key: str) -> Decomposition | None:
        stored = _values(self._path(key, "values"))
        try:
            data = self._path(key, "vectors").read_bytes()
        except FileNotFoundError:
            return None
        if stored is None or hashlib.sha256(data).hexdigest() != stored[1]:
            return None
        vectors = load(data)
        return Decomposition(stored[0], vectors["basis"], vectors.get("dual"))

    def _write(self, key: str, decomposition: Decomposition, metadata: dict[str, str]) -> None:
        dual = {} if decomposition.dual is None else {"dual": decomposition.dual}
        vectors = {"basis": decomposition.basis, **dual}
        data = save({name: np.ascontiguousarray(value) for name, value in vectors.items()})
        metadata = {**metadata, DIGEST: hashlib.sha256(data).hexdigest()}
        with atomic_writer(self._path(key, "vectors")) as file:
            file.write(data)
        with atomic_writer(self._path(key, "values")) as file:
            file.write(save({"values": decomposition.values}, metadata=metadata))


def _values(path: Path) -> tuple[np.ndarray, str] | None:
    """Return a file's singular values and the digest of their vectors; None if the file is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor("values"), (file.metadata() or {})[DIGEST]
    except (OSError, SafetensorError, KeyError):
        return None
