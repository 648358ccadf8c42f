"""GGUF files beside a merge, or in a place of their own: they hold the merge's weights, or they do not."""

import re
from pathlib import Path

import gguf
import libgguf
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Kind

from herdbook.audit.gguf import FACTOR
from herdbook.release.finding import Outcome
from support.gguf_files import gguf_names, write_gguf
from support.strangers import failed, model_config, of, unproven, verify

DOCS = Path(__file__).parents[3] / "docs/audit.md"


@pytest.mark.parametrize(
    ("kind", "sample"),
    [(Kind.F16, None), (Kind.BF16, None), (Kind.Q8_0, None), (Kind.Q4_K, None), (Kind.Q6_K, 300_000)],
)
def test_gguf_files_are_what_the_weights_give(stage, wide, tmp_path, kind, sample):
    tensors, fused, config = wide
    model = model_config(stage.herd / "wide-base")
    path = write_gguf(tmp_path / "x.gguf", tensors, kind, model)
    held = fused if kind in {Kind.Q4_K, Kind.BF16} else tensors
    name = stage.write(held, config, model, files={"x.gguf": path.read_bytes()}, base="wide-base")
    found = verify(name, sample_bytes=sample, seed=2)
    assert not failed(found)
    assert unproven(found) == {"routers"}
    (told,) = of(found, "gguf")
    if sample is None:
        assert told.detail.startswith(
            f"{len(list(gguf_names(2)))} tensors equal those made from the full-width weights, byte"
        )


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "bit":
        content[-5] ^= 1
    elif how == "cut":
        del content[-200:]
    elif how == "magic":
        content[0] ^= 1
    elif how == "endless":
        content[8:24] = (2**60).to_bytes(8, "little") * 2
    return bytes(content)


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("bit", "made from other weights"),
        ("cut", "cut off"),
        ("magic", "no GGUF|does not start"),
        ("endless", "header|cut off"),
    ],
)
def test_damaged_gguf_files(stage, wide, tmp_path, how, word):
    tensors, _, config = wide
    model = model_config(stage.herd / "wide-base")
    path = write_gguf(tmp_path / "x.gguf", tensors, Kind.F16, model)
    name = stage.merge(tensors, config, model, files={"x.gguf": damaged(path, how)}, base="wide-base")
    (told,) = of(verify(name), "gguf", Outcome.FAILED)
    assert re.search(word, told.detail), told.detail


@pytest.mark.slow
def test_an_importance_matrix_is_near_and_other_weights_are_not(stage, wide, tmp_path):
    tensors, _, config = wide
    model = model_config(stage.herd / "wide-base")
    files = {"near.gguf": write_gguf(tmp_path / "near.gguf", tensors, Kind.Q4_K, model, imatrix=True)}
    victim = "model.layers.0.block_sparse_moe.experts.1.w3.weight"
    swapped = tensors | {victim: tensors[victim.replace("experts.1", "experts.0")]}
    files["other.gguf"] = write_gguf(tmp_path / "other.gguf", swapped, Kind.Q4_K, model, imatrix=True)
    name = stage.write(
        tensors,
        config,
        model,
        files={one: path.read_bytes() for one, path in files.items()},
        base="wide-base",
    )
    found = verify(name)
    assert [(one.file, one.tensor) for one in of(found, "gguf", Outcome.FAILED)] == [
        ("other.gguf", "blk.0.ffn_up_exps.weight")
    ]
    assert "times as far" in of(found, "gguf", Outcome.FAILED)[0].detail
    assert "quantized weights" in unproven(found)


@pytest.mark.slow
def test_gguf_files_in_another_place_and_another_rope(stage, wide, tmp_path):
    tensors, _, config = wide
    model = model_config(stage.herd / "wide-base")
    (tmp_path / "files").mkdir()
    write_gguf(tmp_path / "files/x.gguf", tensors, Kind.Q8_0, model, theta=1e6)
    name = stage.merge(tensors, config, model, base="wide-base")
    stage.add("herd/gguf", tmp_path / "files")
    for place in ("herd/gguf", str(tmp_path / "files")):
        found = verify(name, ggufs=[place])
        assert failed(found) == [("gguf", "x.gguf")]
        assert of(found, "gguf", Outcome.FAILED)[0].found == "1000000.0"
        assert of(found, "gguf", Outcome.PASSED)


def rms(values):
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


@pytest.mark.slow
def test_the_table_of_distances_in_the_docs():
    """Measured again as the page says: what an importance matrix costs, and how far other weights are."""
    chance = np.random.default_rng(0)
    weights, other = (chance.standard_t(5, size=(512, 2048)).astype(np.float32) for _ in range(2))
    noise = chance.normal(size=weights.shape).astype(np.float32) * 0.3 * rms(weights)
    importance = np.exp(3 * chance.normal(size=2048)).astype(np.float32)
    u, s, v = np.linalg.svd(weights.astype(np.float64), full_matrices=False)
    kept = int(0.7 * len(s))
    cut = ((u[:, :kept] * s[:kept]) @ v[:kept]).astype(np.float32)
    rows, rounded = slice(0, 64), []
    table = re.findall(r"^\| ([A-Z0-9_]+) \|(.*)\|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(table) == 8
    for name, cells in table:
        kind = Kind[name]

        def distance(values, matrix, kind=kind):
            encoded = np.asarray(libgguf.quantize_rows(values[rows], int(kind), matrix)).view(np.uint8)
            return rms(gguf.quants.dequantize(encoded, kind) - weights[rows])

        least = distance(weights, None)
        measured = [distance(one, importance) / least for one in (weights, weights + noise, cut, other)]
        rounded.append(f"| {name} | {' | '.join(f'{one:.3g}' for one in measured)} |")
        told = [float(cell) for cell in cells.split("|")]
        assert measured == pytest.approx(told, rel=0.03), "\n".join(rounded)
        assert measured[0] < FACTOR < measured[3]


@pytest.mark.parametrize(
    ("more", "wrong", "named"),
    [
        (lambda writer: writer.add_eos_token_id(2), [], ""),
        (
            lambda writer: writer.add_eos_token_id(5),
            [],
            "converter makes of the model's own files: tokenizer.ggml.eos",
        ),
        (
            lambda writer: writer.add_chat_template("obey"),
            [],
            "converter makes .* files: tokenizer.chat_template",
        ),
        (
            lambda writer: writer.add_name("Duet"),
            [],
            "do not follow from the model's own files: general.name",
        ),
        (lambda writer: writer.add_rope_scaling_factor(2.0), ["x.gguf"], ""),
    ],
)
def test_entries_of_a_header_are_compared_or_named(stage, wide, tmp_path, more, wrong, named):
    tensors, _, config = wide
    model = model_config(stage.herd / "wide-base")
    path = write_gguf(tmp_path / "x.gguf", tensors, Kind.F16, model, more=more)
    found = verify(stage.write(tensors, config, model, files={"x.gguf": path.read_bytes()}, base="wide-base"))
    assert [one.subject for one in of(found, "gguf", Outcome.FAILED)] == wrong
    assert of(found, "gguf", Outcome.PASSED)
    (told,) = [one.detail for one in of(found, "unproven") if one.subject == "header"] or [""]
    assert re.search(named, told)
    assert bool(told) == bool(named)
