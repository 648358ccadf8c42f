"""Files that are changed, added, removed or exchanged; checksums follow at most."""

import json

from herdbook.layout import BOMS, CLAIMS, LINEAGE, LOCK, RECIPE, SIGNATURE, SUMS, WEIGHTS_INDEX
from herdbook.weights.checkpoint import read_header
from support import lies

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"


def flip(name, place=0.5):
    def attack(folder):
        path = next(iter(sorted(folder.glob(name))))
        content = bytearray(path.read_bytes())
        content[int(len(content) * place)] ^= 1
        path.write_bytes(content)

    return attack


def other_digit(folder):
    path = folder / SUMS
    text = path.read_text()
    path.write_text(f"{(int(text[0], 16) + 1) % 16:x}{text[1:]}")


def add(folder):
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def remove(folder):
    (folder / "tokenizer.json").unlink()


def rename(folder):
    (folder / "config.json").rename(folder / "configs.json")


def swap_files(folder):
    one, other = sorted(folder.glob("model-*.safetensors"))[:2]
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)


def swap_tensors(folder):
    path = next(
        path
        for path in sorted(folder.glob("model-*.safetensors"))
        if any("experts.0" in t for t in read_header(path))
    )
    spans = [span for name, span in read_header(path).items() if name.endswith(("w1.weight", "w3.weight"))][
        :2
    ]
    content = bytearray(path.read_bytes())
    one, other = (content[span.start : span.end] for span in spans)
    for span, data in zip(spans, (other, one), strict=True):
        content[span.start : span.end] = data
    path.write_bytes(content)


def swap_tensors_and_resum(folder):
    swap_tensors(folder)
    lies.write_sums(folder)


def index_elsewhere(folder):
    data = json.loads((folder / WEIGHTS_INDEX).read_text())
    names = sorted(set(data["weight_map"].values()))
    first = next(iter(data["weight_map"]))
    data["weight_map"][first] = names[-1] if data["weight_map"][first] != names[-1] else names[0]
    (folder / WEIGHTS_INDEX).write_text(json.dumps(data))
    lies.write_sums(folder)


def terabytes(folder):
    path = min(folder.glob("model-*.safetensors"))
    path.write_bytes((1 << 42).to_bytes(8, "little") + path.read_bytes()[8:])
    lies.write_sums(folder)


def deep_header(folder):
    path = min(folder.glob("model-*.safetensors"))
    head = b"[" * 100_000
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    lies.write_sums(folder)


def pointer(folder):
    (folder / "config.json").write_bytes(POINTER)


CASES = [
    ("one bit of the weights", flip("model-*.safetensors"), ("files", "sums", "model-"), {}),
    ("one bit of the index", flip(WEIGHTS_INDEX), ("files", "sums", WEIGHTS_INDEX), {}),
    ("one bit of the configuration", flip("config.json"), ("files", "sums", "config.json"), {}),
    ("one bit of the tokenizer", flip("tokenizer.json"), ("files", "sums", "tokenizer.json"), {}),
    ("one bit of the card", flip("README.md"), ("files", "sums", "README.md"), {}),
    ("one bit of a figure", flip("figures/*.svg"), ("files", "sums", "figures/"), {}),
    ("one bit of the recipe", flip(RECIPE), ("files", "sums", RECIPE), {}),
    ("one bit of the lock", flip(LOCK), ("files", "sums", LOCK), {}),
    ("one bit of a record", flip("provenance/records/*.json"), ("files", "sums", "provenance/records/"), {}),
    ("one bit of the lineage", flip(LINEAGE), ("files", "sums", LINEAGE), {}),
    ("one bit of a bill of materials", flip(BOMS["1.7"]), ("files", "sums", BOMS["1.7"]), {}),
    ("another digit of a digest in the checksums", other_digit, ("files", "sums", ""), {}),
    ("one bit of a claim's payload", flip(CLAIMS, 0.2), ("claims", "", ""), {}),
    ("one bit of the model's signature", flip(SIGNATURE, 0.5), ("claims", "", ""), {}),
    ("a file added: a pickle", add, ("files", "unlisted", "pytorch_model.bin"), {}),
    ("a file removed", remove, ("files", "sums", "tokenizer.json"), {}),
    ("a file renamed", rename, ("files", "sums", "config.json"), {}),
    ("two shards with their names swapped", swap_files, ("files", "sums", "model-"), {}),
    ("two tensors swapped", swap_tensors, ("files", "sums", "model-"), {}),
    ("the same, with new checksums", swap_tensors_and_resum, ("files", "records", "model-"), {}),
    (
        "an index that points elsewhere, with new checksums",
        index_elsewhere,
        ("files", "index", WEIGHTS_INDEX),
        {},
    ),
    ("a header that declares terabytes", terabytes, ("files", "records", "model-"), {}),
    ("a header of a hundred thousand brackets", deep_header, ("files", "records", "model-"), {}),
    ("a pointer of Git LFS in place of a file", pointer, ("files", "sums", "config.json"), {}),
]
