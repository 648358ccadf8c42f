"""Write ``peer.json``: what llama.cpp itself makes of the small models.

Run in an environment of its own, where ``llama-cpp-python==0.3.36`` (built from its sdist) and ``gguf==0.19.0`` are:

    python tests/data/quantize/make_peer.py
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as llama
from small_models import METHODS, MODELS, write_gguf


def quantize(full: Path, output: Path, file_type: int) -> None:
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.nthread = 2
    status = llama.llama_model_quantize(str(full).encode(), str(output).encode(), ctypes.byref(parameters))
    if status:
        raise SystemExit(f"llama_model_quantize failed on {full} ({status})")


def main() -> None:
    llama.llama_backend_init()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name, small in MODELS.items():
            full = Path(folder) / f"{name}.gguf"
            write_gguf(small, full)
            for method in small.methods:
                output = Path(folder) / f"{name}-{method}.gguf"
                quantize(full, output, METHODS[method])
                whole = hashlib.sha256(output.read_bytes()).hexdigest()
                tensors = {
                    tensor.name: [tensor.tensor_type.name, hashlib.sha256(tensor.data.tobytes()).hexdigest()]
                    for tensor in gguf.GGUFReader(output).tensors
                }
                entries = ",\n".join(
                    f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in tensors.items()
                )
                lines.append(f'  "{name} {method}": {{"sha256": "{whole}", "tensors": {{\n{entries}\n  }}}}')
    about = {
        "what": "type and SHA-256 of every tensor, and SHA-256 of the file, as llama.cpp's llama_model_quantize makes them",
        "package": f"llama-cpp-python {version('llama-cpp-python')}, built from its sdist with pip",
        "command": "python tests/data/quantize/make_peer.py",
        "machine": platform.machine(),
    }
    text = '{\n  "about": ' + json.dumps(about) + ",\n" + ",\n".join(lines) + "\n}\n"
    Path(__file__).with_name("peer.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
