"""A release with a file of a budget of bits per weight: made, verified, and made by a builder who chose otherwise."""

import json
import shutil

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.files import dump_json
from herdbook.layout import RECORDS
from herdbook.release.finding import Outcome
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.steps.card.step import render_card
from herdbook.steps.quantize.quantize import quantize_file
from support import lies, quantized, tiny
from support.verification import findings

MODELS = {
    "base": {"hub": "herd/base"},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [{"model": "base", "prompts": ["w1"]}, {"model": "base", "prompts": ["w2"], "noise_scale": 0.5}],
        }
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("budget")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        folder = tiny.write_model(root / "base", seed=1, head_dim=8)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        hub.add_repo("herd/base", files, license="apache-2.0")
        recipe = tiny.write_recipe(root / "r.yaml", MODELS, quantize={"methods": [{"bpw": 6.5}]})
        plan = tiny.build(recipe, root / "results")
        quantized.add_to(plan, quantized.size_label(experts=2))
        render_card(plan, plan.layout.card_folder)
        yield plan, tiny.release(plan, lies.KEY)


def wrong(found):
    return {(one.level, one.check, one.outcome.name) for one in found if one.outcome is not Outcome.PASSED}


def test_an_honest_release_passes(made):
    plan, folder = made
    (item,) = plan.quantized
    assert (item.file, item.budget) == ("Tiny.6.5bpw.gguf", 6.5)
    record = json.loads((folder / RECORDS / f"{item.id}.gguf.json").read_text())
    assert 6 < record["bits_per_weight"] <= 6.5
    assert len({entry["type"] for entry in record["tensors"]}) > 2
    found = findings(folder, "recomputed", sample_bytes=None)
    assert not wrong(found), [one for one in found if one.outcome is not Outcome.PASSED]
    assert any("its types follow from the errors" in one.detail for one in found)


def lie(made, tmp_path, types):
    """Make the release of a builder who gives tensors other types."""
    _, honest = made
    folder = shutil.copytree(honest, tmp_path / "release")
    (item,) = Release(FolderSubject(folder)).make_plan().quantized
    path = folder / RECORDS / f"{item.id}.gguf.json"
    chosen = {entry["name"]: entry["type"] for entry in json.loads(path.read_text())["tensors"]}
    head = shutil.copy(folder / item.file, tmp_path / "head.gguf")
    with lies.told(folder, lies.KEY):
        (folder / item.file).unlink()
        made_of = {**chosen, **types}
        record = quantize_file(head, folder, folder / item.file, made_of, item.file_type)
        path.write_text(dump_json({**item.about, **record}))
    return folder


def test_types_that_errors_do_not_lead_to_are_found(made, tmp_path):
    folder = lie(made, tmp_path, {"blk.0.attn_q.weight": "IQ4_NL", "blk.1.attn_q.weight": "Q4_0"})
    found = findings(folder, "recomputed", sample_bytes=None)
    assert wrong(found) == {("recomputed", "gguf", "FAILED")}


def test_a_file_over_its_budget_is_found(made, tmp_path):
    types = {
        f"blk.{layer}.ffn_{name}_exps.weight": "F16" for layer in range(2) for name in ("up", "down", "gate")
    }
    folder = lie(made, tmp_path, types)
    found = findings(folder, "claims")
    assert any("more than 6.5 bits" in one.detail for one in found if one.outcome is Outcome.FAILED)
