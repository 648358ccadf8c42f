"""Write ``imatrix.json``: digests of the files that llama.cpp itself quantizes with an importance matrix.

Run as ``make_types.py``:

    python tests/data/quantize/make_imatrix.py

The matrix has seeded values, and one expert that no token reached. What ``llama-quantize`` adds to the header is passed on, too.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as llama
import numpy as np
from small_models import ALL_METHODS, ENCODED, MATRIX_METHODS, MIXTURES, matrix_inputs, write_gguf

ENTRIES = {"file": "matrix.gguf", "dataset": "words", "entries_count": 0, "chunks_count": 7}


def matrix_of(full: Path) -> tuple[ctypes.Array, list[np.ndarray]]:
    """Return the matrix as llama.cpp takes it: the means, and ones for what no token reached; and what keeps it in memory."""
    kept, entries = [], []
    for name, (sums, counts) in matrix_inputs(full).items():
        means = [row / count if count else np.ones_like(row) for row, count in zip(sums, counts, strict=True)]
        kept.append(np.concatenate(means).astype(np.float32))
        pointer = kept[-1].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entries.append(llama.llama_model_imatrix_data(name.encode(), pointer, kept[-1].size))
    entries.append(llama.llama_model_imatrix_data(None, None, 0))
    return (llama.llama_model_imatrix_data * len(entries))(*entries), kept


def overrides(entries: int) -> ctypes.Array:
    """Return what ``llama-quantize`` adds to the header."""
    made = []
    for key, value in (ENTRIES | {"entries_count": entries}).items():
        one = llama.llama_model_kv_override()
        one.key = f"quantize.imatrix.{key}".encode()
        if isinstance(value, str):
            one.tag = llama.LLAMA_KV_OVERRIDE_TYPE_STR
            one.value.val_str = value.encode()
        else:
            one.tag = llama.LLAMA_KV_OVERRIDE_TYPE_INT
            one.value.val_i64 = value
        made.append(one)
    made.append(llama.llama_model_kv_override())
    return (llama.llama_model_kv_override * len(made))(*made)


def quantize(full: Path, output: Path, method: str) -> str:
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = ALL_METHODS[method], 2
    array, kept = matrix_of(full)
    added = overrides(len(kept))
    parameters.imatrix = ctypes.cast(array, type(parameters.imatrix))
    parameters.kv_overrides = ctypes.cast(added, type(parameters.kv_overrides))
    status = llama.llama_model_quantize(str(full).encode(), str(output).encode(), ctypes.byref(parameters))
    if status:
        raise SystemExit(f"llama_model_quantize failed on {full}, {method} ({status})")
    assert gguf.GGUFReader(output).tensors
    return hashlib.sha256(output.read_bytes()).hexdigest()


def main() -> None:
    llama.llama_backend_init()
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ENCODED:
            full, output = Path(folder) / f"{name}.gguf", Path(folder) / "made.gguf"
            write_gguf(MIXTURES[name], full)
            for method in MATRIX_METHODS:
                made[f"{name} {method}"] = quantize(full, output, method)
                print(name, method, flush=True)
    about = {
        "what": "SHA-256 of files as llama.cpp's llama_model_quantize makes them with an importance matrix",
        "package": f"llama-cpp-python {version('llama-cpp-python')}, built from its sdist with pip",
        "command": "python tests/data/quantize/make_imatrix.py",
    }
    text = json.dumps({"about": about, **made}, indent=2) + "\n"
    Path(__file__).with_name("imatrix.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
