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
from herdbook.steps.quantize.gguf_file import ALIGNMENT, TensorInfo, header, number_value, padded, read_gguf
from herdbook.steps.quantize.methods import find_method
from herdbook.steps.quantize.mixture import Traits, choose_types

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor
    from pathlib import Path

    from herdbook.steps.quantize.gguf_file import GgufFile
    from herdbook.steps.quantize.methods import Method

ARCHITECTURE = "llama"  # what Llama, Mistral and Mixtral are called in a GGUF


def quantize_file(full: Path, output: Path, method: str, *, threads: int = 1) -> dict[str, Any]:
    """Quantize a full-width GGUF.

    Streams: what is in memory at once is a piece of a tensor. The bytes depend on neither the number of threads nor
    on the names of files; on x86-64 they are those of llama.cpp's ``llama_model_quantize`` without an importance matrix
    (measured against llama-cpp-python 0.3.36, see ``tests/data/quantize/peer.json``).

    Args:
        full: A GGUF of the llama architecture in F32, F16 or BF16, as ``convert`` makes it.
        output: Where the quantized file shall be; written whole or not at all.
        method: One of ``methods.METHODS``.
        threads: How many threads encode.

    Returns:
        A record: ``method``, ``file`` (``size_bytes``, ``sha256``) and ``tensors``, each ``name``, ``type``, ``shape``
        (fastest-moving extent last) and ``sha256`` of its bytes, in the order of the file.

    Raises:
        StepError: If the method is unknown, or the file's architecture is not supported, or it is quantized already.
        CheckpointError: If the file is damaged, or weights are infinite or not a number.
    """
    recipe = find_method(method)
    source = read_gguf(full)
    traits = _traits(source)
    chosen = choose_types(source.tensors, traits, recipe)
    made = [TensorInfo(name, source.tensors[name].shape, kind) for name, kind in chosen.items()]
    head = header(_metadata(source, recipe), made)
    whole = hashlib.sha256(head)
    entries = []
    with (
        ThreadPoolExecutor(threads) as pool,
        atomic_writer(output) as file,
        track(f"quantize {method}", len(made)) as advance,
    ):
        file.write(head)
        for tensor in made:
            one = hashlib.sha256()
            for piece in _encoded(source, tensor, pool if threads > 1 else None):
                one.update(piece)
                whole.update(piece)
                file.write(piece)
            padding = bytes(padded(tensor.size_bytes) - tensor.size_bytes)
            whole.update(padding)
            file.write(padding)
            entries.append(
                {
                    "name": tensor.name,
                    "type": tensor.type.name,
                    "shape": list(tensor.shape),
                    "sha256": one.hexdigest(),
                }
            )
            advance()
        size_bytes = file.tell()
    return {
        "method": recipe.name,
        "file": {"size_bytes": size_bytes, "sha256": whole.hexdigest()},
        "tensors": entries,
    }


def _traits(source: GgufFile) -> Traits:
    """Read what the mixture asks about the model; refuse what cannot be quantized here."""
    architecture = source.value("general.architecture")
    if architecture != ARCHITECTURE:
        raise StepError(
            f"{source.path}: the architecture {architecture!r} is not supported, only {ARCHITECTURE!r} "
            "(Llama, Mistral, Mixtral)."
        )
    if source.value("general.alignment", ALIGNMENT) != ALIGNMENT:
        raise StepError(
            f"{source.path}: tensors are not aligned to {ALIGNMENT} bytes; convert the model again."
        )
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
            raise StepError(
                f"{source.path}: its metadata lack {ARCHITECTURE}.{key}; convert the model again."
            )
    heads = numbers["attention.head_count"]
    return Traits(
        layers=numbers["block_count"],
        experts=source.value(f"{ARCHITECTURE}.expert_count", 0),
        heads=heads,
        kv_heads=source.value(f"{ARCHITECTURE}.attention.head_count_kv", heads),
    )


def _metadata(source: GgufFile, method: Method) -> dict[str, bytes]:
    """Return the source's metadata with the two keys that quantizing sets, at the end, where llama.cpp puts them."""
    new = {
        "general.quantization_version": number_value(GGUFValueType.UINT32, GGML_QUANT_VERSION),
        "general.file_type": number_value(GGUFValueType.UINT32, method.file_type),
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
