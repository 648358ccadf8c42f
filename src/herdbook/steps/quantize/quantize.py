"""A full-width GGUF to a quantized one: the file that llama.cpp's ``llama-quantize`` would write, tensor by tensor."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gguf.constants import GGML_QUANT_VERSION, GGUFValueType

from herdbook.errors import StepError
from herdbook.files import atomic_writer
from herdbook.progress import track
from herdbook.steps.quantize.encode import FULL_WIDTH, block_rows, decode_full_width, encode
from herdbook.steps.quantize.methods import find_method
from herdbook.steps.quantize.mixture import Traits, choose_types
from herdbook.weights.gguf_file import ALIGNMENT, TensorInfo, header, padded, read_gguf
from herdbook.weights.gguf_header import encode_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor
    from pathlib import Path

    from herdbook.steps.quantize.methods import Method
    from herdbook.weights.gguf_file import GgufFile

ARCHITECTURE = "llama"  # the architecture of Llama, Mistral and Mixtral in a GGUF


def quantize_file(full: Path, output: Path, method: str, *, threads: int = 1) -> dict[str, Any]:
    """Quantize a full-width GGUF.

    Only a piece of a tensor is in memory at a time. The bytes depend neither on the number of threads nor on the names of
    files; on x86-64 they equal those of llama.cpp's ``llama_model_quantize`` without an importance matrix (measured against
    llama-cpp-python 0.3.36, see ``tests/data/quantize/peer.json``).

    Args:
        full: A GGUF of the llama architecture in F32, F16 or BF16, as ``convert`` writes it.
        output: The path of the quantized file, which is written atomically.
        method: One of ``methods.METHODS``.
        threads: How many threads encode.

    Returns:
        A record: ``method``, ``file`` (``size_bytes``, ``sha256``) and ``tensors``, each ``name``, ``type``, ``shape``
        (fastest-moving extent last) and ``sha256`` of its bytes, in the order of the file.

    Raises:
        StepError: If the method is unknown, or the file's architecture is not supported, or it is quantized already.
        CheckpointError: If the file is damaged, or weights are infinite or not a number.
    """
    chosen = find_method(method)
    source = read_gguf(full)
    types = choose_types(source.tensors, _traits(source), chosen)
    tensors = [TensorInfo(name, source.tensors[name].shape, kind) for name, kind in types.items()]
    head = header(_metadata(source, chosen), tensors)
    file_sha256 = hashlib.sha256(head)
    entries = []
    with (
        ThreadPoolExecutor(threads) as pool,
        atomic_writer(output) as file,
        track(f"quantize {method}", len(tensors)) as advance,
    ):
        file.write(head)
        for tensor in tensors:
            sha256 = hashlib.sha256()
            for piece in _encoded(source, tensor, pool if threads > 1 else None):
                sha256.update(piece)
                file_sha256.update(piece)
                file.write(piece)
            padding = bytes(padded(tensor.size_bytes) - tensor.size_bytes)
            file_sha256.update(padding)
            file.write(padding)
            entries.append(
                {
                    "name": tensor.name,
                    "type": tensor.type.name,
                    "shape": list(tensor.shape),
                    "sha256": sha256.hexdigest(),
                }
            )
            advance()
        size_bytes = file.tell()
    return {
        "method": chosen.name,
        "file": {"size_bytes": size_bytes, "sha256": file_sha256.hexdigest()},
        "tensors": entries,
    }


def _traits(source: GgufFile) -> Traits:
    """Return the model's traits; refuse files that cannot be quantized."""
    architecture = source.value("general.architecture")
    if architecture != ARCHITECTURE:
        raise StepError(
            f"{source.path}: the architecture {architecture!r} is not supported, only {ARCHITECTURE!r} "
            "(Llama, Mistral, Mixtral)."
        )
    if source.value("general.alignment", ALIGNMENT) != ALIGNMENT:
        raise StepError(f"{source.path}: tensors are not aligned to {ALIGNMENT} bytes; rerun `convert`.")
    for tensor in source.tensors.values():
        if tensor.type not in FULL_WIDTH:
            raise StepError(
                f"{source.path}: tensor {tensor.name} is quantized already ({tensor.type.name}). Quantize from the "
                "full-width file."
            )
    numbers = {}
    for key in ("block_count", "attention.head_count"):
        numbers[key] = source.value(f"{ARCHITECTURE}.{key}")
        if numbers[key] is None:
            raise StepError(f"{source.path}: its metadata lack {ARCHITECTURE}.{key}; rerun `convert`.")
    heads = numbers["attention.head_count"]
    return Traits(
        layers=numbers["block_count"],
        experts=source.value(f"{ARCHITECTURE}.expert_count", 0),
        heads=heads,
        kv_heads=source.value(f"{ARCHITECTURE}.attention.head_count_kv", heads),
    )


def _metadata(source: GgufFile, method: Method) -> dict[str, bytes]:
    """Return the source's metadata with the two keys that quantizing sets, at the end, as in llama.cpp."""
    new = {
        "general.quantization_version": encode_number(GGUFValueType.UINT32, GGML_QUANT_VERSION),
        "general.file_type": encode_number(GGUFValueType.UINT32, method.file_type),
    }
    return {key: raw for key, raw in source.metadata.items() if key not in new} | new


def _encoded(source: GgufFile, target: TensorInfo, pool: Executor | None) -> Iterator[bytes]:
    """Yield a tensor's new bytes, a piece at a time."""
    tensor = source.tensors[target.name]
    step = block_rows(tensor.width)
    for first in range(0, tensor.rows, step):
        data = source.read_rows(tensor, first, min(step, tensor.rows - first))
        if target.type == tensor.type:
            yield data.tobytes()
        else:
            rows = decode_full_width(data, tensor.type)
            yield encode(rows, target.type, pool, f"{source.path}: tensor {tensor.name}").tobytes()
