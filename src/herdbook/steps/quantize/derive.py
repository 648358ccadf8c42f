"""Proof that a GGUF comes from a model: every tensor is recomputed directly from the safetensors, and compared.

Types are read from the file. It needs no llama.cpp, and reads one piece of a tensor at a time.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from herdbook.architectures.gguf_tensors import derived
from herdbook.errors import CheckpointError, VerificationError
from herdbook.progress import track
from herdbook.steps.quantize.encode import block_rows, encode
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.quantize import summary
from herdbook.steps.quantize.source import Weights, rows_of, shape_in, tensors_of
from herdbook.weights.gguf_file import GgufFile, read_gguf

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from herdbook.architectures.gguf_tensors import TensorLayout
    from herdbook.steps.quantize.model_folder import ModelFolder
    from herdbook.weights.gguf_file import TensorInfo
    from herdbook.weights.imatrix import ImportanceMatrix

FLOAT32_NEAR = 1e-6  # rounding of a few operations in float32


@dataclass(frozen=True)
class Derivation:
    """A GGUF beside what follows from a model.

    Args:
        record: What the file contains, in the form of the record that ``quantize`` writes.
        problems: What is wrong with a tensor, by its name; empty if all are equal.
    """

    record: dict[str, Any]
    problems: dict[str, str]


def derive(
    gguf: Path | GgufFile, model: Path, *, matrix: ImportanceMatrix | None = None, threads: int = 1
) -> Derivation:
    """Recompute every tensor of a GGUF from a model's safetensors and compare the bytes.

    Args:
        gguf: The GGUF or its path, quantized or of full width.
        model: The Hugging Face folder of the model that it should come from.
        matrix: The importance matrix that it was quantized with.
        threads: How many threads encode.

    Raises:
        CheckpointError: If a file is damaged, or the GGUF and the model do not have the same tensors.
        StepError: If the architecture or a type is not supported.
    """
    file = gguf if isinstance(gguf, GgufFile) else read_gguf(gguf)
    folder = read_folder(model)
    parts = _matched(file, folder)
    entries, problems = [], {}
    weights = Weights(matrix)
    with ThreadPoolExecutor(threads) as pool, track(f"derive {file.path.name}", len(file.tensors)) as advance:
        for tensor in file.tensors.values():
            part = parts[tensor.name]
            sha256, problem = _compare(file, tensor, folder, part, weights, pool if threads > 1 else None)
            entries.append(
                {
                    "name": tensor.name,
                    "type": tensor.type.name,
                    "sources": list(part.sources),
                    "sha256": sha256,
                }
            )
            if problem:
                problems[tensor.name] = f"({tensor.type.name}): {problem}"
            advance()
    about = {"size_bytes": file.size_bytes, "sha256": file.digest()}
    record = {"file": about, **summary(list(file.tensors.values())), "tensors": entries}
    return Derivation(record, problems)


def require_equal(derived: Derivation, what: str) -> None:
    """Check that a file equals what was derived.

    Args:
        derived: The result of ``derive``.
        what: The file's name in the error.

    Raises:
        VerificationError: If anything differs; all differences are named.
    """
    if derived.problems:
        lines = "".join(f"\n  tensor {name} {problem}" for name, problem in derived.problems.items())
        raise VerificationError(f"{what}: does not come from this model:{lines}")


def _matched(file: GgufFile, folder: ModelFolder) -> dict[str, TensorLayout]:
    """Return the layout of each tensor of the GGUF by name; refuse missing and extra tensors on both sides."""
    parts = tensors_of(folder)
    if missing := [name for name in parts if name not in file.tensors]:
        raise CheckpointError(f"{file.path}: tensors are missing: {', '.join(missing)}")
    if extra := [name for name in file.tensors if name not in parts]:
        raise CheckpointError(f"{file.path}: has tensors that the model does not have: {', '.join(extra)}")
    return parts


def _compare(
    file: GgufFile,
    tensor: TensorInfo,
    folder: ModelFolder,
    part: TensorLayout,
    weights: Weights,
    pool: Executor | None,
) -> tuple[str, str]:
    """Recompute one tensor, piece by piece, and compare each piece with the file.

    Returns:
        The SHA-256 of its bytes in the file, and the problem; empty without one.
    """
    sha256, remaining = hashlib.sha256(), tensor.rows
    expected = shape_in(folder, part)
    if tensor.shape != expected:
        step = block_rows(tensor.width)
        for first in range(0, tensor.rows, step):
            sha256.update(file.read_rows(tensor, first, min(step, tensor.rows - first)).tobytes())
        return sha256.hexdigest(), f"its shape is {list(tensor.shape)}, {list(expected)} expected"
    if not part.sources:
        theirs = file.read_rows(tensor, 0, tensor.rows)
        near = np.allclose(theirs.view("<f4"), derived(folder.config, part.name), rtol=FLOAT32_NEAR, atol=0)
        sha256.update(theirs.tobytes())
        return sha256.hexdigest(), "" if near else "does not follow from config.json"
    wrong_bytes = 0
    for source, rows in rows_of(folder, part):
        theirs = file.read_rows(tensor, tensor.rows - remaining, len(rows))
        ours = encode(rows, tensor.type, pool, f"{folder.path}: {source}", weights.of(part, source))
        sha256.update(theirs.tobytes())
        wrong_bytes += int(np.count_nonzero(ours != theirs))
        remaining -= len(rows)
    problem = f"{wrong_bytes} of {tensor.size_bytes} bytes differ" if wrong_bytes else ""
    return sha256.hexdigest(), problem
