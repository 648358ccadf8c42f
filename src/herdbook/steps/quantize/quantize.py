"""A model's safetensors to a quantized GGUF: the file that llama.cpp's ``llama-quantize`` would write, tensor by tensor.

Every tensor is read from the shards, encoded and written once, or copied from another file that has it already. Its digest, and
that of the file, are computed in the same pass, so the record states what the file contains and what it was made from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gguf.constants import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFValueType

from herdbook.errors import CheckpointError, StepError
from herdbook.files import atomic_writer
from herdbook.progress import track
from herdbook.steps.quantize.encode import encode as encoded
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.source import Weights, rows_of, shape_in, tensors_of
from herdbook.weights.gguf_file import ALIGNMENT, TensorInfo, header, padded, read_gguf
from herdbook.weights.gguf_header import encode, encode_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from herdbook.architectures.gguf_tensors import TensorLayout
    from herdbook.steps.quantize.held import HeldTensor
    from herdbook.steps.quantize.model_folder import ModelFolder
    from herdbook.weights.gguf_file import GgufFile
    from herdbook.weights.imatrix import ImportanceMatrix


def quantize_file(
    head: Path,
    model: Path,
    output: Path,
    types: Mapping[str, str],
    file_type: int,
    *,
    matrix: ImportanceMatrix | None = None,
    entries: Mapping[str, str | int] | None = None,
    held: Mapping[str, HeldTensor] | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Make a quantized GGUF of a model.

    Only a piece of a tensor is in memory at a time. The bytes depend neither on the number of threads nor on the names of
    files; on x86-64 they equal those that llama.cpp's ``llama_model_quantize`` makes of the full-width GGUF by its converter
    (measured against llama-cpp-python 0.3.36, see ``tests/data/quantize``).

    Args:
        head: A GGUF with the metadata, as ``convert`` writes it.
        model: The Hugging Face folder.
        output: The path of the quantized file, which is written atomically.
        types: The type of each tensor by its name in the GGUF, in the order of the file.
        file_type: llama.cpp's number of the method.
        matrix: An importance matrix that weighs the errors of columns.
        entries: What the header gets besides.
        held: Tensors that another file of the model has as they are to be in this one, which are copied.
        threads: How many threads encode.

    Returns:
        A record: ``file`` (``size_bytes``, ``sha256``), ``encoder``, ``parameters``, ``bits_per_weight`` (bits of all tensors
        divided by parameters, three decimals, without the header), ``types`` (parameters by type) and ``tensors`` (each
        ``name``, ``type``, ``sha256`` of its bytes in the file, and ``sources``).

    Raises:
        StepError: If the architecture or a dtype is not supported, or a type needs an importance matrix.
        CheckpointError: If a file is damaged, weights are infinite or not a number, or ``types`` are another model's.
        DigestMismatchError: If what is copied is not as it was when it was made.
    """
    folder = read_folder(model)
    parts = tensors_of(folder)
    if parts.keys() != types.keys():
        odd = min(parts.keys() ^ types.keys())
        raise CheckpointError(
            f"{model}: its tensors are not the planned ones, such as {odd}; rerun the build"
        )
    tensors = [
        TensorInfo(name, shape_in(folder, parts[name]), GGMLQuantizationType[kind])
        for name, kind in types.items()
    ]
    source = read_gguf(head)
    written = _Written(header(_metadata(source, file_type, entries or {}), tensors))
    weights = Weights(matrix)
    with (
        ThreadPoolExecutor(threads) as pool,
        atomic_writer(output) as file,
        track(f"quantize {output.name}", len(tensors)) as advance,
    ):
        file.write(written.head)
        for tensor in tensors:
            part, copy = parts[tensor.name], (held or {}).get(tensor.name)
            if copy:
                pieces = copy.pieces(tensor)
            elif part.sources:
                pieces = _encoded(folder, part, tensor, weights, pool if threads > 1 else None)
            else:
                pieces = _copied(source, tensor)
            for piece in pieces:
                file.write(written.piece(piece))
            file.write(written.end(tensor, part))
            if copy:
                copy.check(written.entries[-1]["sha256"])
            advance()
    return written.record(tensors)


class _Written:
    """What has been written: digests and entries of the record."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.file, self.size_bytes = hashlib.sha256(head), len(head)
        self.tensor = hashlib.sha256()
        self.entries: list[dict[str, Any]] = []

    def piece(self, data: bytes) -> bytes:
        """Count a piece of a tensor, and return it."""
        self.tensor.update(data)
        self.file.update(data)
        self.size_bytes += len(data)
        return data

    def end(self, tensor: TensorInfo, part: TensorLayout) -> bytes:
        """Count the end of a tensor, and return the bytes after it."""
        padding = bytes(padded(tensor.size_bytes) - tensor.size_bytes)
        self.file.update(padding)
        self.size_bytes += len(padding)
        self.entries.append(
            {
                "name": tensor.name,
                "type": tensor.type.name,
                "sources": list(part.sources),
                "sha256": self.tensor.hexdigest(),
            }
        )
        self.tensor = hashlib.sha256()
        return padding

    def record(self, tensors: list[TensorInfo]) -> dict[str, Any]:
        """Return the record."""
        about = {"size_bytes": self.size_bytes, "sha256": self.file.hexdigest()}
        return {"file": about, **summary(tensors), "tensors": self.entries}


def summary(tensors: list[TensorInfo]) -> dict[str, Any]:
    """Return a record's entries for all tensors of a file together."""
    types: Counter[str] = Counter()
    for tensor in tensors:
        types[tensor.type.name] += tensor.parameters
    bits = 8 * sum(tensor.size_bytes for tensor in tensors)
    return {
        "encoder": f"libgguf {version('libgguf')}",
        "parameters": types.total(),
        "bits_per_weight": round(bits / types.total(), 3),
        "types": dict(sorted(types.items())),
    }


def _metadata(source: GgufFile, file_type: int, entries: Mapping[str, str | int]) -> dict[str, bytes]:
    """Return the header's metadata with the keys that quantizing sets, at the end, as in llama.cpp."""
    if source.value("general.alignment", ALIGNMENT) != ALIGNMENT:
        raise StepError(f"{source.path}: tensors are not aligned to {ALIGNMENT} bytes; rerun `convert`.")
    new = {
        "general.quantization_version": encode_number(GGUFValueType.UINT32, GGML_QUANT_VERSION),
        "general.file_type": encode_number(GGUFValueType.UINT32, file_type),
        **{key: encode(value) for key, value in entries.items()},
    }
    return {key: raw for key, raw in source.metadata.items() if key not in new} | new


def _copied(source: GgufFile, tensor: TensorInfo) -> Iterator[bytes]:
    """Yield the bytes of a tensor that follows from the configuration, which ``convert`` has computed."""
    found = source.tensors.get(tensor.name)
    if found is None or (found.shape, found.type) != (tensor.shape, tensor.type):
        raise CheckpointError(f"{source.path}: lacks the tensor {tensor.name}; rerun `convert`")
    yield source.read_rows(found, 0, found.rows).tobytes()


def _encoded(
    folder: ModelFolder, part: TensorLayout, tensor: TensorInfo, weights: Weights, pool: Executor | None
) -> Iterator[bytes]:
    """Yield a tensor's bytes, a piece at a time."""
    for source, rows in rows_of(folder, part):
        of_columns = weights.of(part, source)
        yield encoded(rows, tensor.type, pool, f"{folder.path}: {source}", of_columns).tobytes()
