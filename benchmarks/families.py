"""Each family that becomes GGUF, read by llama.cpp's runtime, beside transformers.

The small models of the tests, with random weights, become files in F32. Printed for each: the architecture in the file, the number of
tokens, and the largest difference between llama.cpp's logits and transformers' in float32, as a share of the largest logit. For
DeepSeek's mixtures, which transformers does not have, it is the difference from a plain computation in float64.

    pip install llama-cpp-python==0.3.36
    python benchmarks/families.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from herdbook.layout import CONFIG

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import gguf_families as small


def main() -> None:
    """Compare, and print."""
    print("| class | architecture in the file | tokens | difference |\n| --- | --- | ---: | ---: |")
    for name, length, changes in small.RUNS:
        with tempfile.TemporaryDirectory() as place:
            folder, path = small.write_file(Path(place), name, **changes)
            tokens = small.TOKENS[:length]
            apart = small.distance(small.computed(path, tokens), small.logits(folder, tokens))
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        ways = ", ".join(
            f"{key} {value if not isinstance(value, dict) else '...'}" for key, value in changes.items()
        )
        title = f"{config['architectures'][0]} ({name}{', ' if ways else ''}{ways})"
        print(f"| {title} | `{small.PEER[name]['architecture']}` | {length} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    main()
