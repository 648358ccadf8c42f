"""Models of random weights, as wide as real ones and of any depth, which benchmarks build from."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from herdbook.files import write_json
from herdbook.weights.checkpoint import Produced, write_shard

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support import buttercup, tiny  # noqa: E402

MB, GB = 10**6, 10**9
VOCABULARY = 120  # tokens of the small tokenizer
ROWS = 2048  # that are drawn at once


def write_source(folder: Path, widths: buttercup.Widths, seed: int, tokenizer: Path | None = None) -> None:
    """Write a Mistral in bfloat16, with finite values in the range of real weights.

    Args:
        folder: Its folder, which must not exist.
        widths: Its widths and depth.
        seed: The seed of its weights.
        tokenizer: Folder with its tokenizer's files (default: a tokenizer of a hundred words).
    """
    generator = np.random.default_rng(seed)

    def tensor(name: str, shape: tuple[int, ...]) -> Produced:
        def chunks() -> Iterator[bytes]:
            for row in range(0, shape[0], ROWS):
                size = (min(ROWS, shape[0] - row), *shape[1:])
                yield ((generator.integers(0, 1 << 16, size, np.uint16) & 0x80FF) | 0x3C00).tobytes()

        return Produced(name, "BF16", shape, chunks)

    folder.mkdir(parents=True)
    tensors = [tensor(name, shape) for name, shape in widths.shapes().items()]
    write_shard(folder / "model.safetensors", folder / "made.json", tensors, {})
    (folder / "made.json").unlink()
    write_json(folder / "config.json", widths.config())
    if tokenizer is None:
        tiny.write_tokenizer(folder, VOCABULARY)
        return
    for file in tokenizer.iterdir():
        shutil.copy(file, folder)
    config = {**buttercup.SPECIAL, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    write_json(folder / "tokenizer_config.json", config)
