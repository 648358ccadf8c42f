"""Quantized files of one model, which copy from each other what is the same in both: each is as if it had been made alone."""

import json

import numpy as np
import pytest

from herdbook.errors import CheckpointError, DigestMismatchError
from herdbook.quantization.types import TYPES
from herdbook.steps.quantize import quantize as quantizing
from herdbook.steps.quantize.step import quantize
from herdbook.weights.gguf_file import header, read_gguf
from herdbook.weights.gguf_header import encode
from herdbook.weights.imatrix import ImportanceMatrix, Inputs
from support import tiny

OWN = {"method": "Q4_K_M", "name": "own", "types": {"attn_q": "Q5_K", "ffn_up": "Q3_K"}}
PLAIN = {"quantize": {"methods": ["Q4_K_M", "Q8_0", "Q4_K_L", "Q6_K", "F16", "Q3_K_M", {"bpw": 5.0}, OWN]}}
MATRIX = "given.imatrix.gguf"
WEIGHED = {
    "quantize": {"imatrix": {"file": MATRIX}, "methods": ["Q4_0", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q8_0", OWN]}
}
# types whose tables take seconds to fill
IN_GRIDS = {
    "quantize": {
        "imatrix": {"file": MATRIX},
        "methods": ["Q4_K_M", {"bpw": 4.0}, "IQ2_M", "IQ3_M", {"bpw": 3.5}],
    }
}


def make(root, **sections):
    """Return the plan of a model that is wide enough for K types, with all results but quantized files."""
    tiny.write_model(root / "base", seed=5, hidden=256, intermediate=256)
    generator = np.random.default_rng(1)
    inputs = {
        f"blk.{layer}.{name}.weight": Inputs(
            generator.random((1, 256), np.float32) + np.float32(0.1), np.full(1, 99, np.float32)
        )
        for layer in range(2)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    }
    (root / MATRIX).write_bytes(b"".join(ImportanceMatrix(inputs, ("t",), 1, 8).pieces()))
    plan = tiny.build(
        tiny.write_recipe(root / "r.yaml", {"base": {"folder": "base"}}, **sections), root / "results"
    )
    head = plan.layout.header(plan.conversion)
    head.parent.mkdir(parents=True, exist_ok=True)
    head.write_bytes(header({"general.architecture": encode("llama")}, []))
    return plan


def files(plan, item):
    return plan.layout.quantized(item), plan.layout.quantized_record(item)


def contents(plan, item):
    return tuple(path.read_bytes() for path in files(plan, item))


def types(plan, item):
    record = json.loads(plan.layout.quantized_record(item).read_text())
    return {entry["name"]: entry["type"] for entry in record["tensors"]}


@pytest.fixture(
    scope="module",
    params=[PLAIN, *(pytest.param(one, marks=pytest.mark.slow) for one in (WEIGHED, IN_GRIDS))],
    ids=["plain", "imatrix", "grids"],
)
def made(request, tmp_path_factory):
    """Give a plan, and the content of each file as it is without any other one beside it."""
    plan = make(tmp_path_factory.mktemp("held"), **request.param)
    alone = {}
    for item in plan.quantized:
        quantize(plan, item, 1)
        alone[item.id] = contents(plan, item)
        for path in files(plan, item):
            path.unlink()
    return plan, alone


@pytest.fixture
def none(made):
    """Leave no quantized file behind."""
    yield
    plan, _ = made
    for item in plan.quantized:
        for path in files(plan, item):
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("backwards", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_files_are_the_same_beside_others_and_nothing_is_encoded_twice(made, none, monkeypatch, backwards):
    plan, alone = made
    encoded = []
    original = quantizing.encoded

    def spy(rows, kind, pool, what, weights=None):
        encoded.append((what.rpartition(": ")[2], kind.name))
        return original(rows, kind, pool, what, weights)

    monkeypatch.setattr(quantizing, "encoded", spy)
    order = plan.quantized[::-1] if backwards else plan.quantized
    for item in order:
        quantize(plan, item, 2 if backwards else 1)
    for item in plan.quantized:
        assert contents(plan, item) == alone[item.id], item.method
    # each of these small tensors is one piece
    costly = [(name, kind) for name, kind in encoded if not TYPES[kind].is_full_width]
    assert len(costly) == len(set(costly))
    sources = {}
    for item in plan.quantized:
        for entry in json.loads(plan.layout.quantized_record(item).read_text())["tensors"]:
            sources[entry["name"]] = entry["sources"]
    wanted = {(name, kind) for item in order for name, kind in types(plan, item).items()}
    assert set(costly) == {
        (source, kind) for name, kind in wanted if not TYPES[kind].is_full_width for source in sources[name]
    }


def damaged(plan, item, tensor):
    """Change a byte of a tensor in a finished file."""
    path, _ = files(plan, item)
    content = bytearray(path.read_bytes())
    content[read_gguf(path).tensors[tensor].start + 5] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Give a plan of two files that have most tensors in common."""
    return make(tmp_path_factory.mktemp("two"), quantize={"methods": ["Q4_K_S", "Q4_K_M"]})


@pytest.fixture
def other(two):
    """Make the first of the files anew, and remove the second."""
    first, second = two.quantized
    for path in (*files(two, first), *files(two, second)):
        path.unlink(missing_ok=True)
    quantize(two, first, 1)
    return first


def test_a_file_that_differs_from_its_record_is_named_with_the_tensor_and_nothing_is_made_of_it(two, other):
    tensor = "blk.1.ffn_up.weight"
    damaged(two, other, tensor)
    second = two.quantized[1]
    with pytest.raises(
        DigestMismatchError, match=rf"{other.id}\.gguf: tensor {tensor}: .*Delete it and its record"
    ):
        quantize(two, second, 1)
    left = {path.name for path in files(two, second)[0].parent.iterdir()}
    assert not {path.name for path in files(two, second)} & left
    assert not [name for name in left if second.method in name]


def test_what_is_not_copied_may_be_damaged(two, other):
    second = two.quantized[1]
    quantize(two, second, 1)
    before = contents(two, second)
    ours, theirs = types(two, second), types(two, other)
    own = next(name for name in ours if ours[name] != theirs[name])
    damaged(two, other, own)
    quantize(two, second, 1)
    assert contents(two, second) == before


def test_a_file_without_its_record_is_no_source(two, other):
    second = two.quantized[1]
    quantize(two, second, 1)
    before = contents(two, second)
    damaged(two, other, "blk.1.ffn_up.weight")
    files(two, other)[1].unlink()  # the record is written last: the file is about to be finished
    quantize(two, second, 1)
    assert contents(two, second) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: whole[:-64], r"cut off inside tensor"),
        (lambda whole: whole[:0], r"is not a GGUF"),
        (lambda _: header({}, []), r"lacks the tensor .* of its record"),
    ],
)
def test_a_damaged_file_is_named(two, other, content, message):
    path, _ = files(two, other)
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(CheckpointError, match=message):
        quantize(two, two.quantized[1], 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"is damaged: .*Delete it and its file"),
        ('{"tensors": [3]}', "is no record"),
        ("{}", "is no record"),
    ],
)
def test_a_damaged_record_is_named(two, other, text, message):
    files(two, other)[1].write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"\.json: {message}"):
        quantize(two, two.quantized[1], 1)


def test_a_tensor_of_another_type_than_the_record_has_is_refused(two, other):
    _, record = files(two, other)
    content = json.loads(record.read_text())
    ours = two.quantized[1].types
    entry = next(one for one in content["tensors"] if ours[one["name"]] not in {one["type"], "F32"})
    entry["type"] = ours[entry["name"]]
    record.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=rf"{entry['name']} is not as its record states"):
        quantize(two, two.quantized[1], 1)
