"""Decompositions kept on disk, so that one serves every rule, rank, trial and recipe.

A decomposition follows from the matrix's bytes and our code alone, so it is filed under a digest of these: the same
matrix in another model or recipe is not decomposed again. Two files each: the singular values (small, worth keeping)
and the vectors (a square of the smaller side in float64). Either may be deleted at any time; what is missing or
damaged is computed again.
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
from herdbook.plan.code import Code
from herdbook.steps.laser.decompose import Decomposition, decompose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

DECOMPOSE_CODE = Code(("herdbook.steps.laser.decompose",))
# transformers tokenizes with tokenizers
WHITEN_CODE = Code(
    ("herdbook.inference.forward", "herdbook.inference.text", "herdbook.steps.laser.whiten"),
    packages=("tokenizers",),
)
DIGEST = "vectors_sha256"


@dataclass(frozen=True)
class DecompositionStore:
    """A folder of decompositions.

    Args:
        folder: Where they lie. Several processes may use it at once.
        device: Where what is missing is computed. Results of different kinds of device are filed apart.
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
        """Return a matrix's decomposition, from the folder, or computed and put there.

        Args:
            matrix: The matrix.
            sha256: Digest of its bytes.
            calibration: Digest of model and text, if the decomposition is whitened.
            compute: Makes it, if ``decompose`` does not.

        Raises:
            StepError: If a whitened one is not there and nothing makes it.
        """
        key = self._key(matrix, sha256, calibration)
        found = self._read(key)
        if found is None:
            if compute is None and calibration:
                raise StepError(f"{self._path(key, 'vectors')}: is gone or damaged. Run the step again.")
            found = decompose(matrix, self.device) if compute is None else compute()
            self._write(key, found, {"tensor_sha256": sha256, "calibration": calibration})
        return found

    def has(self, matrix: torch.Tensor, sha256: str, calibration: str) -> bool:
        """Say whether a decomposition is there and whole."""
        return self._read(self._key(matrix, sha256, calibration)) is not None

    def values(self, matrix: torch.Tensor, sha256: str) -> np.ndarray:
        """Return a matrix's singular values, descending; vectors are not read if the values are there."""
        found = _values(self._path(self._key(matrix, sha256, ""), "values"))
        return self.decomposition(matrix, sha256).values if found is None else found[0]

    def _key(self, matrix: torch.Tensor, sha256: str, calibration: str) -> str:
        return digest(
            {
                "tensor": sha256,
                "dtype": str(matrix.dtype),
                "shape": list(matrix.shape),
                "device": self.device.partition(":")[0],
                "calibration": calibration,
                "code": (WHITEN_CODE if calibration else DECOMPOSE_CODE).describe(),
            }
        )

    def _path(self, key: str, what: str) -> Path:
        return self.folder / key[:2] / f"{key}.{what}.safetensors"

    def _read(self, key: str) -> Decomposition | None:
        found = _values(self._path(key, "values"))
        try:
            data = self._path(key, "vectors").read_bytes()
        except FileNotFoundError:
            return None
        if found is None or hashlib.sha256(data).hexdigest() != found[1]:
            return None
        vectors = load(data)
        return Decomposition(found[0], vectors["basis"], vectors.get("dual"))

    def _write(self, key: str, found: Decomposition, about: dict[str, str]) -> None:
        vectors = {"basis": found.basis} | ({} if found.dual is None else {"dual": found.dual})
        data = save({name: np.ascontiguousarray(value) for name, value in vectors.items()})
        about = {**about, DIGEST: hashlib.sha256(data).hexdigest()}
        with atomic_writer(self._path(key, "vectors")) as file:
            file.write(data)
        with atomic_writer(self._path(key, "values")) as file:
            file.write(save({"values": found.values}, metadata=about))


def _values(path: Path) -> tuple[np.ndarray, str] | None:
    """Return a file's singular values and the digest of the vectors that belong to them; None if it is no good."""
    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor("values"), (file.metadata() or {})[DIGEST]
    except (OSError, SafetensorError, KeyError):
        return None
