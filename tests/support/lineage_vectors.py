"""The vectors of the specification of tensor lineage: small releases, their sources, and whether a checker must accept them.

``python -m support.lineage_vectors``, in the folder ``tests``, writes docs/spec/vectors.json.
"""

import base64
import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

BASE = "pkg:huggingface/herd/base@" + "a" * 40
TUNED = "pkg:huggingface/herd/tuned@" + "b" * 40
WEIGHTS = "model.safetensors"
LINEAGE = "provenance/lineage.jsonl"


def values(seed, count):
    """Return bytes of `count` numbers in BF16; any bytes would do."""
    return b"".join(hashlib.sha256(f"{seed} {number}".encode()).digest()[:2] for number in range(count))


def safetensors(tensors):
    """Return a safetensors file: dtype, shape and bytes by name."""
    header, position = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


def sha256(data):
    """Return a digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def equals(uri, tensor, rows=None):
    """Return an entry of equality."""
    entry = {"uri": uri, "source": uri[20:].split("@")[0], "file": WEIGHTS, "tensor": tensor}
    return entry | ({"rows": rows} if rows else {})


def herd():
    """Return a release that is right: its tensors, its sources, and the lines of its lineage without places."""
    base = {
        "embed": ("BF16", [6, 4], values("embed", 24)),
        "mlp": ("BF16", [4, 4], values("mlp", 16)),
        "norm": ("F32", [4], values("norm", 8)),
    }
    tuned = {"mlp": ("BF16", [4, 4], values("tuned mlp", 16)), "norm": base["norm"]}
    stacked = base["mlp"][2] + tuned["mlp"][2]
    rows = base["embed"][2][16:] + bytes(8)
    mean = values("mean", 16)
    released = {
        "embed": ("BF16", [5, 4], rows),
        "experts": ("BF16", [2, 4, 4], stacked),
        "mean": ("BF16", [4, 4], mean),
        "norm": base["norm"],
    }
    lines = {
        "embed": [
            ("embed[0:4]", [4, 4], {"equals": equals(BASE, "embed", [2, 6])}),
            ("embed[4:5]", [1, 4], {"made": made("merge", "zeros", "embed[4:5]", [])}),
        ],
        "experts": [
            ("experts.0", [4, 4], {"equals": equals(BASE, "mlp")}),
            ("experts.1", [4, 4], {"equals": equals(TUNED, "mlp")}),
        ],
        "mean": [
            (
                None,
                [4, 4],
                {
                    "made": made(
                        "merge",
                        "merge",
                        "mean",
                        [
                            {"sha256": sha256(base["mlp"][2]), "equals": equals(BASE, "mlp")},
                            {"sha256": sha256(tuned["mlp"][2]), "equals": equals(TUNED, "mlp")},
                        ],
                    )
                },
            )
        ],
        "norm": [(None, [4], {"equals": equals(BASE, "norm"), "also": [equals(TUNED, "norm")]})],
    }
    return released, {BASE: base, TUNED: tuned}, lines


def made(operation, action, tensor, parents):
    """Return an entry of something that was computed."""
    return {
        "operation": operation,
        "action": action,
        "parameters": {},
        "model": "herd",
        "tensor": tensor,
        "of": parents,
    }


def placed(released, lines):
    """Return the lines of a lineage, each with its place in the file and its digest."""
    file = safetensors(released)
    position = 8 + int.from_bytes(file[:8], "little")
    for name, (dtype, _, _) in released.items():
        for slice_, shape, origin in lines[name]:
            count = 2 if dtype == "BF16" else 4
            for extent in shape:
                count *= extent
            yield {
                "file": WEIGHTS,
                "tensor": name,
                "slice": slice_,
                "dtype": dtype,
                "shape": shape,
                "begin": position,
                "end": position + count,
                "sha256": sha256(file[position : position + count]),
                **origin,
            }
            position += count


@dataclass
class Herd:
    """What a vector changes: tensors of the release and of its sources, and the lines of the lineage."""

    released: dict
    sources: dict
    lines: list


def altered(tensors, name):
    """Change one bit of a tensor."""
    dtype, shape, data = tensors[name]
    tensors[name] = (dtype, shape, data[:-1] + bytes([data[-1] ^ 1]))


def swap(lines):
    """Exchange the sources of the two experts."""
    lines[2]["equals"], lines[3]["equals"] = lines[3]["equals"], lines[2]["equals"]


def deny(lines):
    """State that an expert was computed, of itself under another digest."""
    origin = {"sha256": "0" * 64, "equals": lines[2].pop("equals")}
    lines[2]["made"] = made("moe", "alter", "experts.0", [origin])


# Name, description, and what is changed of the release that is right.
WRONG = (
    ("altered-release", "one bit of a released tensor differs", lambda it: altered(it.released, "experts")),
    ("altered-source", "one bit of a source's tensor differs", lambda it: altered(it.sources[TUNED], "mlp")),
    ("altered-other-source", "one bit differs in the second of two sources of the same bytes", lambda it: altered(it.sources[TUNED], "norm")),
    ("swapped-experts", "each expert is stated to be the other", lambda it: swap(it.lines)),
    ("other-rows", "rows of the embeddings are stated as other rows", lambda it: it.lines[0]["equals"].update(rows=[0, 4])),
    ("rows-beyond", "rows are stated that the tensor does not have", lambda it: it.lines[0]["equals"].update(rows=[2, 7])),
    ("gap", "a line is missing", lambda it: it.lines.pop(1)),
    ("missing-tensor", "a tensor has no lineage", lambda it: it.lines.pop()),
    ("both-origins", "a line states two origins", lambda it: it.lines[5].update(made=made("merge", "merge", "norm", []))),
    ("denied-equality", "an ancestor is stated with a digest that it does not have", lambda it: deny(it.lines)),
    ("other-dtype", "a line has another dtype than the file", lambda it: it.lines[0].update(dtype="F16")),
    ("path-outside", "a source's file is named outside its folder", lambda it: it.lines[0]["equals"].update(file=f"../{WEIGHTS}")),
)  # fmt: skip


def vector(name, about, change=None):
    """Return a vector: the release that is right, or with a change that a checker must find."""
    released, sources, lines = herd()
    it = Herd(released, sources, copy.deepcopy(list(placed(released, lines))))
    if change:
        change(it)
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in it.lines)
    return {
        "name": name,
        "about": about,
        "accept": change is None,
        "files": {WEIGHTS: encoded(safetensors(it.released)), LINEAGE: encoded(text.encode())},
        "sources": {uri: {WEIGHTS: encoded(safetensors(tensors))} for uri, tensors in it.sources.items()},
    }


def encoded(data):
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def vectors():
    """Yield all vectors."""
    yield vector("right", "rows, stacked slices, a computed tensor, and bytes that two sources share")
    for name, about, change in WRONG:
        yield vector(name, about, change)


if __name__ == "__main__":
    place = Path(__file__).parents[2] / "docs" / "spec" / "vectors.json"
    place.write_text(json.dumps(list(vectors()), indent=1) + "\n", encoding="utf-8")
