"""Write ``mlx.safetensors``: what mlx makes of the matrices in ``peer.safetensors``, in each width.

Run in an environment of its own, where ``mlx==0.32.4`` (on Linux with ``mlx-cpu==0.32.4``) and ``mlx-lm==0.32.2`` are, on a CPU:

    python tests/data/compress/make_mlx_peer.py

``mlx.json`` gets what mlx-lm writes into ``config.json`` of a small Llama.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.utils import quantize_model, save_config

WIDTHS = (4, 6, 8)


def main() -> None:
    """Write both files."""
    here, tensors, settings = Path(__file__).parent, {}, {}
    mx.set_default_device(mx.cpu)
    for name, matrix in mx.load(str(here / "peer.safetensors")).items():
        short, _, rest = name.partition(".")
        for bits in WIDTHS if rest == "matrix" else ():
            made = mx.quantize(matrix, group_size=64, bits=bits)
            parts = zip(("weight", "scales", "biases"), made, strict=True)
            tensors |= {f"{short}.{bits}.{part}": tensor for part, tensor in parts}
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": 64,
    }
    for bits in WIDTHS:
        _, written = quantize_model(Model(ModelArgs.from_dict(config)), config, None, bits)
        with tempfile.TemporaryDirectory() as folder:
            save_config(written, Path(folder) / "config.json")
            found = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        settings[bits] = {key: value for key, value in found.items() if key not in config}
    versions = {name: version(name) for name in ("mlx", "mlx-lm")}
    mx.save_safetensors(str(here / "mlx.safetensors"), tensors, metadata=versions)
    text = json.dumps({"versions": versions, "settings": settings}, indent=2, sort_keys=True)
    (here / "mlx.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
