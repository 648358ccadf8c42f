"""A release with an importance matrix: made, verified, and made by builders who lie about it. Sources are on a local Hub."""

import json
import shutil

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.files import dump_json, sha256_file
from herdbook.layout import IMATRIX, RECORDS
from herdbook.release.finding import Outcome
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.steps.card.step import render_card
from herdbook.steps.quantize.quantize import quantize_file
from herdbook.weights.gguf_file import read_gguf
from herdbook.weights.gguf_parts import join
from herdbook.weights.imatrix import Inputs, read_imatrix
from support import lies, quantized, tiny
from support.verification import findings

MODELS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [{"model": "base", "prompts": ["w1"]}, {"model": "tuned", "prompts": ["w2"]}],
        }
    },
}
SECTIONS = {
    "quantize": {"imatrix": {"texts": ["text"], "floor": 5}, "methods": ["IQ4_XS", "Q8_0"], "split": "30KB"},
    "calibration": {"text": {"data": ["text.jsonl"], "split": "train", "windows": 30, "tokens": 8}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("matrix")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        for seed, name in enumerate(("base", "tuned")):
            folder = tiny.write_model(root / name, seed=seed, head_dim=8)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            hub.add_repo(f"herd/{name}", files, license="apache-2.0")
        lines = [json.dumps({"text": " ".join(f"w{(7 * n + i) % 40}" for i in range(40))}) for n in range(40)]
        (root / "text.jsonl").write_text("\n".join(lines) + "\n")
        plan = tiny.build(tiny.write_recipe(root / "r.yaml", MODELS, **SECTIONS), root / "results")
        quantized.add_to(plan, quantized.size_label(experts=2))
        render_card(plan, plan.layout.card_folder)
        yield root / "r.yaml", plan, tiny.release(plan, lies.KEY)


def wrong(found):
    return {(one.level, one.check, one.outcome.name) for one in found if one.outcome is not Outcome.PASSED}


def test_an_honest_release_passes(made):
    recipe, plan, folder = made
    assert (folder / plan.imatrix.file).exists()
    found = findings(folder, "recomputed", sample_bytes=None, inputs=recipe)
    assert not wrong(found), [one for one in found if one.outcome is not Outcome.PASSED]
    (one,) = [one for one in found if one.check == "importance matrix"]
    assert "14 tensors" in one.detail
    # every token reaches both experts of a mixture of two
    record = json.loads(plan.layout.matrix_record(plan.imatrix).read_text())
    assert record["experts"] == {f"blk.{layer}.ffn_down_exps.weight": [240, 240] for layer in range(2)}
    with_matrix = {item.method: item.imatrix is not None for item in plan.quantized}
    assert with_matrix == {"IQ4_XS": True, "Q8_0": False}
    # of both files, one is larger than `split`; its parts are in the release, and join to what was made
    names = {path.name for path in folder.glob("*.gguf")}
    parts = {f"Tiny.Q8_0-0000{number}-of-00002.gguf" for number in (1, 2)}
    assert names == {"Tiny.IQ4_XS.gguf", "Tiny.imatrix.gguf", *parts}
    joined = join([read_gguf(folder / name) for name in sorted(parts)])
    assert joined.digest() == sha256_file(plan.layout.quantized(plan.quantized[1]))
    assert "Tiny.Q8_0-*-of-00002.gguf" in (folder / "README.md").read_text()


def test_without_the_texts_the_matrix_is_taken_as_recorded(made):
    _, _, folder = made
    found = findings(folder, "recomputed", sample_bytes=None)
    assert wrong(found) == {("recomputed", "importance matrix", "UNVERIFIED")}
    assert any(one.check == "gguf" and "IQ4_XS" in one.subject for one in found)


def test_a_matrix_that_no_text_gives_is_found(made, tmp_path):
    """The liar's file follows from the liar's matrix; the text does not lead to it."""
    recipe, _, honest = made
    folder = shutil.copytree(honest, tmp_path / "release")
    plan = Release(FolderSubject(folder)).make_plan()
    item, other = plan.quantized[0], read_imatrix(folder / plan.imatrix.file)
    inputs = {name: Inputs(one.sums[:, ::-1].copy(), one.counts) for name, one in other.inputs.items()}
    with lies.told(folder, lies.KEY):
        path = folder / plan.imatrix.file
        path.unlink()
        changed = type(other)(inputs, ("text",), other.chunks, other.chunk_tokens)
        path.write_bytes(b"".join(changed.pieces()))
        file = folder / item.file
        head = tmp_path / "head.gguf"
        shutil.copy(file, head)
        file.unlink()
        entries = item.imatrix.entries
        record = quantize_file(
            head, folder, file, item.types, item.file_type, matrix=changed, entries=entries
        )
        (folder / RECORDS / f"{item.id}.gguf.json").write_text(dump_json({**item.about, **record}))
        about = folder / RECORDS / f"{plan.imatrix.id}{IMATRIX}.json"
        size = {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
        about.write_text(dump_json({**json.loads(about.read_text()), "file": size}))
    found = findings(folder, "recomputed", sample_bytes=None, inputs=recipe)
    assert wrong(found) == {("recomputed", "importance matrix", "FAILED")}


@pytest.mark.parametrize("number", [1, 2])
def test_a_part_that_was_changed_is_found(made, tmp_path, number):
    recipe, _, honest = made
    folder = shutil.copytree(honest, tmp_path / "release")
    path = folder / f"Tiny.Q8_0-0000{number}-of-00002.gguf"
    content = bytearray(path.read_bytes())
    path.unlink()
    content[-40] ^= 1  # in its last tensor
    with lies.told(folder, lies.KEY):
        path.write_bytes(content)
    found = findings(folder, "recomputed", sample_bytes=None, inputs=recipe)
    assert wrong(found) == {("recomputed", "gguf", "FAILED")}
