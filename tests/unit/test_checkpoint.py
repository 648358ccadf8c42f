"""Safetensors as bytes: what the reference library writes is read, and what is written it reads; damage is told."""

import hashlib
import io
import json
import random
from functools import partial

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from herdbook.errors import CheckpointError, DigestMismatchError
from herdbook.weights import checkpoint, finite
from herdbook.weights.checkpoint import (
    Produced,
    digest_shard,
    parse_header,
    read_header,
    read_span,
    stream_span,
    write_shard,
)
from herdbook.weights.digests import Digests
from herdbook.weights.record import read_record
from herdbook.weights.tensors import DTYPES, from_bytes, to_bytes

TENSORS = {
    "b": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "a": torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16),
    "scalar": torch.tensor(2.5, dtype=torch.float16),
    "empty": torch.zeros(0, 4),
    "counts": torch.arange(3, dtype=torch.int64),
}
CODES = {"b": "F32", "a": "BF16", "scalar": "F16", "empty": "F32", "counts": "I64"}


def raw(tensor):
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def test_reads_what_the_reference_library_writes(reference):
    spans = read_header(reference)
    assert {name: (span.dtype, span.shape) for name, span in spans.items()} == {
        name: (CODES[name], tuple(tensor.shape)) for name, tensor in TENSORS.items()
    }
    for name, tensor in TENSORS.items():
        assert read_span(reference, spans[name]) == raw(tensor)
        assert b"".join(map(bytes, stream_span(reference, spans[name]))) == raw(tensor)


@pytest.mark.parametrize("size", [4, 16, 64, 1 << 20])
def test_pieces_of_any_size_make_the_same_file(reference, tmp_path, monkeypatch, size):
    monkeypatch.setattr(checkpoint, "PIECE_BYTES", size)
    tensors = [
        Produced(name, span.dtype, span.shape, partial(stream_span, reference, span))
        for name, span in read_header(reference).items()
    ]
    path, copy = tmp_path / "made.safetensors", io.BytesIO()
    record = write_shard(path, tmp_path / "made.json", tensors, {})
    assert {name: bytes(raw(tensor)) for name, tensor in load_file(path).items()} == {
        name: raw(tensor) for name, tensor in TENSORS.items()
    }
    assert digest_shard(path, copy=copy) == (record["file"]["sha256"], record["tensors"])
    assert copy.getvalue() == path.read_bytes()


def test_a_piece_stays_until_the_next_but_one_is_asked_for(reference, monkeypatch):
    monkeypatch.setattr(checkpoint, "PIECE_BYTES", 4)
    pieces = stream_span(reference, read_header(reference)["b"])
    found, before = b"", next(pieces)
    for piece in pieces:
        found += before
        before = piece
    assert found + before == raw(TENSORS["b"])


def test_a_piece_is_hashed_before_its_buffer_is_used_again():
    digests, buffers, content = Digests(), (bytearray(1 << 22), bytearray(1 << 22)), b""
    with digests:
        for number in range(6):
            piece = bytes([number]) * (1 << 22)
            buffers[number % 2][:] = piece
            digests.update(buffers[number % 2])
            content += piece
        assert digests.end_tensor() == digests.end_file() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [4, 16, 64, 1 << 20])
def test_digests_are_those_of_hashlib(reference, monkeypatch, size):
    monkeypatch.setattr(checkpoint, "PIECE_BYTES", size)
    whole, entries = digest_shard(reference)
    assert whole == hashlib.sha256(reference.read_bytes()).hexdigest()
    assert {name: entry["sha256"] for name, entry in entries.items()} == {
        name: hashlib.sha256(raw(tensor)).hexdigest() for name, tensor in TENSORS.items()
    }


def produced(name, **changes):
    tensor = TENSORS[name]
    halves = raw(tensor)[:3], raw(tensor)[3:]
    return Produced(name, CODES[name], tuple(tensor.shape), lambda: halves, {"action": "fetch"}, **changes)


def test_reference_library_reads_what_is_written(tmp_path):
    path, record_path = tmp_path / "made.safetensors", tmp_path / "made.json"
    record = write_shard(path, record_path, map(produced, TENSORS), {"key": "k"})
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    assert all(
        found[name].equal(tensor) and found[name].dtype == tensor.dtype for name, tensor in TENSORS.items()
    )
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    whole, entries = digest_shard(path)
    assert read_record(record_path) == record
    assert record["file"] == {"size_bytes": path.stat().st_size, "sha256": whole}
    assert record["key"] == "k"
    assert all(record["tensors"][name] == {**entries[name], "action": "fetch"} for name in TENSORS)


def test_the_same_tensors_give_the_same_file_in_any_order(tmp_path):
    for number in range(3):
        names = list(TENSORS)
        random.Random(number).shuffle(names)
        write_shard(tmp_path / str(number), tmp_path / f"{number}.json", map(produced, names), {})
    assert len({(tmp_path / str(number)).read_bytes() for number in range(3)}) == 1


def test_wrong_bytes_are_not_written(tmp_path):
    copy = produced("a", expected="0" * 64, source="parent.safetensors: tensor b")
    with pytest.raises(
        DigestMismatchError, match=r"^parent\.safetensors: tensor b: expected digest 0{64}, .* delete it"
    ):
        write_shard(tmp_path / "made", tmp_path / "made.json", [copy], {})
    short = Produced("a", "BF16", (5, 7), lambda: [b"xx"])
    with pytest.raises(CheckpointError, match="tensor a: 70 bytes expected, 2 written"):
        write_shard(tmp_path / "made", tmp_path / "made.json", [short], {})
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_told(reference, tmp_path):
    content = reference.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in [*range(0, len(content), 7), len(content) - 1]:
        cut.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="truncated|too few|damaged"):
            read_header(cut)
    cut.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="bytes after its last tensor"):
        read_header(cut)


def test_file_that_shrinks_after_its_header_was_read(reference):
    span = max(read_header(reference).values(), key=lambda span: span.end)
    reference.write_bytes(reference.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"truncated inside tensor {span.name}"):
        read_span(reference, span)
    with pytest.raises(CheckpointError, match=f"truncated inside tensor {span.name}"):
        list(stream_span(reference, span))


def header(value, data=b""):
    text = json.dumps(value).encode() if not isinstance(value, bytes) else value
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (header(b"{not json"), "damaged"),
        (header([1]), "damaged"),
        (header({"a": {"dtype": "F32", "shape": [1]}}), "damaged"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "byte range|truncated"),
        (
            header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
            "tensor a: its byte range",
        ),
        (header({"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), "tensor a: dtype F4"),
        (
            header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
            r"tensor a: shape \[-1\]",
        ),
        (
            header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
            "tensor a: its byte range",
        ),
        (
            header(
                {
                    "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                    "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                },
                b"1234",
            ),
            "tensor b: its byte range",
        ),
        ((10**9).to_bytes(8, "little") + b"{}", "claims 1000000000 bytes"),
    ],
)
def test_headers_that_contradict_themselves(content, expected):
    with pytest.raises(CheckpointError, match=expected):
        parse_header(content, len(content), "file")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: is missing"):
        read_header(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match=r"gone\.json: the record is missing"):
        read_record(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"bad\.json: the record is damaged"):
        read_record(tmp_path / "bad.json")


@pytest.mark.parametrize("name", ["a", "b", "scalar"])
def test_bytes_and_tensors(name):
    tensor = TENSORS[name]
    assert to_bytes(tensor) == raw(tensor)
    assert from_bytes(raw(tensor), CODES[name], tuple(tensor.shape), name).equal(tensor)


def test_what_cannot_be_computed_with():
    with pytest.raises(CheckpointError, match="weight: dtype I64"):
        from_bytes(raw(TENSORS["counts"]), "I64", (3,), "weight")
    with pytest.raises(CheckpointError, match="weight: contains NaN or infinite"):
        from_bytes(raw(torch.tensor([1.0, float("nan")])), "F32", (2,), "weight")


@pytest.mark.parametrize("code", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("place", [0, finite.BLOCK - 1, finite.BLOCK, 2 * finite.BLOCK])
def test_numbers_are_finite_as_torch_finds_them(code, place):
    tensor = torch.linspace(-3, 3, 2 * finite.BLOCK + 1, dtype=torch.float64).to(DTYPES[code])
    largest = torch.finfo(tensor.dtype).max
    for number in (largest, -largest, 0.0, -0.0, float("nan"), -float("nan"), float("inf"), -float("inf")):
        tensor[place] = number
        assert finite.all_finite(to_bytes(tensor), code) == bool(tensor.isfinite().all())
    assert finite.all_finite(b"", code)
