"""Write ``types.json``: the types that llama.cpp itself chooses for the tensors of small models, by every method.

Run in an environment of its own, where ``llama-cpp-python==0.3.36`` (built from its sdist) and ``gguf==0.19.0`` are:

    python tests/data/quantize/make_types.py

The larger models are not encoded: llama.cpp then says in its log which types it would choose. With an importance matrix, all weights of a row count alike: types do not depend on its values.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import re
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as llama
import numpy as np
from small_models import ALL_METHODS, CHOSEN, ENCODED, MIXTURES, NEED_MATRIX, write_gguf


def matrix_of(full: Path) -> tuple[ctypes.Array, list[np.ndarray]]:
    """Return an importance matrix of ones for llama.cpp, and what keeps it in memory."""
    kept, entries = [], []
    for tensor in gguf.GGUFReader(full).tensors:
        experts = int(tensor.shape[2]) if len(tensor.shape) > 2 else 1
        kept.append(np.ones(int(tensor.shape[0]) * experts, np.float32))
        pointer = kept[-1].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entries.append(llama.llama_model_imatrix_data(tensor.name.encode(), pointer, kept[-1].size))
    entries.append(llama.llama_model_imatrix_data(None, None, 0))
    return (llama.llama_model_imatrix_data * len(entries))(*entries), kept


LINE = re.compile(r"\] +(\S+) +- \[[^]]*\], type = +(\S+), size = (?:.*-> .* \((\S+)\))?")
LOG: list[str] = []


@llama.llama_log_callback
def heard(level: int, text: bytes, data: object) -> None:
    LOG.append(text.decode("utf-8", "replace"))


def quantize(
    full: Path, output: Path, method: str, *, matrix: bool, chosen: dict | None = None, dry: bool
) -> None:
    parameters = llama.llama_model_quantize_default_params()
    parameters.dry_run = dry
    LOG.clear()
    parameters.ftype, parameters.nthread = ALL_METHODS[method], 2
    array, kept = matrix_of(full)  # in memory until the end
    if matrix:
        parameters.imatrix = ctypes.cast(array, type(parameters.imatrix))
    chosen = chosen or {}
    if chosen.get("output"):
        parameters.output_tensor_type = gguf.GGMLQuantizationType[chosen["output"]]
    if chosen.get("embeddings"):
        parameters.token_embedding_type = gguf.GGMLQuantizationType[chosen["embeddings"]]
    if chosen.get("types"):
        pairs = [
            llama.llama_model_tensor_override(pattern.encode(), gguf.GGMLQuantizationType[kind])
            for pattern, kind in chosen["types"].items()
        ]
        pairs.append(llama.llama_model_tensor_override(None, 0))
        overrides = (llama.llama_model_tensor_override * len(pairs))(*pairs)
        parameters.tt_overrides = ctypes.cast(overrides, type(parameters.tt_overrides))
    status = llama.llama_model_quantize(str(full).encode(), str(output).encode(), ctypes.byref(parameters))
    if status:
        raise SystemExit(f"llama_model_quantize failed on {full}, {method} ({status})")
    assert kept


def counted(types: list[str]) -> str:
    """Return types as text; several of one kind in a row are counted."""
    runs = ((kind, len(list(run))) for kind, run in itertools.groupby(types))
    return " ".join(kind if length == 1 else f"{length}*{kind}" for kind, length in runs)


def answer(output: Path, *, dry: bool) -> dict:
    if dry:
        lines = LINE.finditer("".join(LOG))
        return {"types": counted([(line[3] or line[2]).upper() for line in lines])}
    tensors = gguf.GGUFReader(output).tensors
    return {
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
        "types": counted([tensor.tensor_type.name for tensor in tensors]),
    }


def main() -> None:
    llama.llama_backend_init()
    llama.llama_log_set(heard, ctypes.c_void_p(0))
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, small in MIXTURES.items():
            full, output = Path(folder) / f"{name}.gguf", Path(folder) / "made.gguf"
            write_gguf(small, full)
            dry = name not in ENCODED
            for method in ALL_METHODS:
                for matrix in (False, True):
                    if matrix or method not in NEED_MATRIX:
                        quantize(full, output, method, matrix=matrix, dry=dry)
                        made[f"{name} {method}{' matrix' if matrix else ''}"] = answer(output, dry=dry)
                        print(name, method, matrix, flush=True)
            for label, (method, chosen) in CHOSEN.items():
                quantize(full, output, method, matrix=False, chosen=chosen, dry=dry)
                made[f"{name} {label}"] = answer(output, dry=dry)
    about = {
        "what": "types of all tensors in the order of the file, and SHA-256 of the file, as llama.cpp's llama_model_quantize makes them",
        "package": f"llama-cpp-python {version('llama-cpp-python')}, built from its sdist with pip",
        "command": "python tests/data/quantize/make_types.py",
        "form": "types of one kind in a row are counted",
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in made.items()]
    text = '{\n  "about": ' + json.dumps(about) + ",\n" + ",\n".join(lines) + "\n}\n"
    Path(__file__).with_name("types.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
