"""Proof that a GGUF comes from a model: every tensor is recomputed directly from the safetensors, and compared.

This uses neither the choice of types (types are read from the file) nor the converter nor the full-width GGUF that made
the file. It needs no llama.cpp, and reads one piece of a tensor at a time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from herdbook.architectures.conversion import HYPERPARAMETERS
from herdbook.errors import CheckpointError, VerificationError
from herdbook.files import sha256_file
from herdbook.progress import track
from herdbook.steps.quantize.encode import block_rows, encode
from herdbook.steps.quantize.layout import layout, row_order
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.weights.gguf_file import read_gguf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from numpy.typing import NDArray

    from herdbook.steps.quantize.layout import TensorLayout
    from herdbook.steps.quantize.model_folder import ModelFolder
    from herdbook.weights.gguf_file import GgufFile, TensorInfo

EQUAL, DIFFERS = "equal", "differs"


def derive(gguf_path: Path, model: Path, *, threads: int = 1) -> dict[str, Any]:
    """Recompute every tensor of a GGUF from a model's safetensors and compare the bytes.

    Args:
        gguf_path: The GGUF, quantized or of full width.
        model: The Hugging Face folder of the model that it should come from.
        threads: How many threads encode.

    Returns:
        A record: ``verdict`` ("equal" only if everything is), ``differing`` (names of tensors and metadata keys),
        ``file`` (``size_bytes``, ``sha256``), ``encoder``, ``parameters``, ``bits_per_weight`` (bits of all tensors
        divided by parameters, three decimals, without the header), ``types`` (parameters by type), ``metadata`` (each
        ``key``, ``found``, ``expected``, ``verdict``) and ``tensors`` (each ``name``, ``type``, ``sha256`` of its bytes in
        the file, ``sources``, ``verdict``, and if it differs, ``problem``).

    Raises:
        CheckpointError: If a file is damaged, or the GGUF and the model do not have the same tensors.
        StepError: If the architecture or a type is not supported.
    """
    file, folder = read_gguf(gguf_path), read_folder(model)
    parts = _matched(file, folder)
    metadata = list(compare_metadata(file, folder.config))
    tensors = []
    with ThreadPoolExecutor(threads) as pool, track(f"derive {gguf_path.name}", len(file.tensors)) as advance:
        for tensor in file.tensors.values():
            tensors.append(_compare(file, tensor, folder, parts[tensor.name], pool if threads > 1 else None))
            advance()
    types: Counter[str] = Counter()
    for tensor in file.tensors.values():
        types[tensor.type.name] += tensor.parameters
    parameters = types.total()
    differing = [entry["key"] for entry in metadata if entry["verdict"] == DIFFERS]
    differing += [entry["name"] for entry in tensors if entry["verdict"] == DIFFERS]
    bits = 8 * sum(tensor.size_bytes for tensor in file.tensors.values())
    return {
        "verdict": DIFFERS if differing else EQUAL,
        "differing": differing,
        "file": {"size_bytes": file.size_bytes, "sha256": sha256_file(gguf_path)},
        "encoder": f"libgguf {version('libgguf')}",
        "parameters": parameters,
        "bits_per_weight": round(bits / parameters, 3),
        "types": dict(sorted(types.items())),
        "metadata": metadata,
        "tensors": tensors,
    }


def require_equal(record: Mapping[str, Any], what: str) -> None:
    """Check that a file equals what was derived.

    Args:
        record: The result of ``derive``.
        what: The file's name in the error.

    Raises:
        VerificationError: If anything differs; all differences are named.
    """
    if record["verdict"] == EQUAL:
        return
    problems = [
        f"{entry['key']} is {entry['found']}, but {entry['expected']} in the model's configuration"
        for entry in record["metadata"]
        if entry["verdict"] == DIFFERS
    ]
    problems += [
        f"tensor {entry['name']} ({entry['type']}): {entry['problem']}"
        for entry in record["tensors"]
        if entry["verdict"] == DIFFERS
    ]
    raise VerificationError(
        f"{what}: does not come from this model:\n" + "\n".join(f"  {line}" for line in problems)
    )


def _matched(file: GgufFile, folder: ModelFolder) -> dict[str, TensorLayout]:
    """Return the layout of each tensor of the GGUF by name; refuse missing and extra tensors on both sides."""
    parts = {
        name: part
        for name, part in layout(folder.config, str(folder.path)).items()
        if part.required or any(source in folder.tensors for source in part.sources)
    }
    for part in parts.values():
        for source in part.sources:
            if source not in folder.tensors:
                raise CheckpointError(f"{folder.path}: the tensor {source} is missing")
    if missing := [name for name in parts if name not in file.tensors]:
        raise CheckpointError(f"{file.path}: tensors are missing: {', '.join(missing)}")
    if extra := [name for name in file.tensors if name not in parts]:
        raise CheckpointError(f"{file.path}: has tensors that the model does not have: {', '.join(extra)}")
    known = {source for part in parts.values() for source in part.sources}
    # old checkpoints contain the rotary frequencies, which can be computed
    unused = [name for name in sorted(folder.tensors) if name not in known and not name.endswith(".inv_freq")]
    if unused:
        raise CheckpointError(f"{folder.path}: has tensors that a GGUF cannot contain: {', '.join(unused)}")
    return parts


def compare_metadata(file: GgufFile, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Compare the model's hyperparameters; those that config.json does not contain are left out.

    Args:
        file: The GGUF.
        config: The model's ``config.json``.

    Yields:
        ``key``, ``found``, ``expected`` and ``verdict`` of each.
    """
    rope = config.get("rope_parameters") or {}
    for key, theirs in HYPERPARAMETERS.items():
        expected = config.get(theirs, rope.get(theirs))
        if expected is None:
            continue
        found = file.value(key)
        # numbers in the file are float32
        same = found is not None and np.float32(found) == np.float32(expected)
        yield {"key": key, "found": found, "expected": expected, "verdict": EQUAL if same else DIFFERS}


def _compare(
    file: GgufFile, tensor: TensorInfo, folder: ModelFolder, part: TensorLayout, pool: Executor | None
) -> dict[str, Any]:
    """Recompute one tensor, piece by piece, and compare each piece with the file."""
    entry: dict[str, Any] = {"name": tensor.name, "type": tensor.type.name, "sources": list(part.sources)}
    sha256, remaining = hashlib.sha256(), tensor.rows
    expected = _expected_shape(folder, part)
    if tensor.shape == expected:
        wrong_bytes = 0
        for rows in _source_rows(folder, part):
            theirs = file.read_rows(tensor, tensor.rows - remaining, len(rows))
            ours = encode(rows, tensor.type, pool, f"{folder.path}: {part.sources[0]}")
            sha256.update(theirs.tobytes())
            wrong_bytes += int(np.count_nonzero(ours != theirs))
            remaining -= len(rows)
        problem = f"{wrong_bytes} of {tensor.size_bytes} bytes differ" if wrong_bytes else ""
    else:
        problem = f"its shape is {list(tensor.shape)}, {list(expected)} expected"
        step = block_rows(tensor.width)
        for first in range(0, tensor.rows, step):
            sha256.update(file.read_rows(tensor, first, min(step, tensor.rows - first)).tobytes())
    entry |= {"sha256": sha256.hexdigest(), "verdict": DIFFERS if problem else EQUAL}
    return entry | {"problem": problem} if problem else entry


def _expected_shape(folder: ModelFolder, part: TensorLayout) -> tuple[int, ...]:
    """Return the shape in the GGUF; all sources of a stacked tensor must have the same shape."""
    shapes = {folder.tensors[source][1].shape for source in part.sources}
    if len(shapes) > 1:
        raise CheckpointError(
            f"{folder.path}: the experts stacked in {part.name} differ in shape: {sorted(shapes)}"
        )
    shape = shapes.pop()
    if part.heads and shape[0] % (2 * part.heads):
        raise CheckpointError(
            f"{folder.path}: the {shape[0]} rows of {part.sources[0]} cannot be divided among {part.heads} heads"
        )
    return (len(part.sources), *shape) if part.stacked else shape


def _source_rows(folder: ModelFolder, part: TensorLayout) -> Iterator[NDArray[np.float32]]:
    """Yield the rows of a GGUF tensor in its order, a piece at a time, ``(n, width)`` float32."""
    for source in part.sources:
        shape = folder.tensors[source][1].shape
        if len(shape) == 1:
            vector = folder.rows(source, slice(None))
            yield vector[:, row_order(shape[0], part.heads)]
            continue
        order, step = row_order(shape[0], part.heads), block_rows(shape[1])
        for first in range(0, shape[0], step):
            yield folder.rows(source, order[first : first + step])
