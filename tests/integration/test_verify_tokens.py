"""Lined-up rows in verification: honest releases pass, and rows of builders who lie are named.

A builder who lies has his own key, and derives all that he says from the lie.
"""

import hashlib
import json
import shutil

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.layout import LINEAGE, LOCK, RECORDS
from herdbook.release.finding import Outcome
from herdbook.steps import aligned
from herdbook.steps.card.step import render_card
from support import tiny
from support.inputs.tokens import add
from support.lies import KEY, told
from support.verification import findings, status

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MODELS = {"a": {"hub": "herd/a"}, "b": {"hub": "herd/b"}}
UNION = {"source": "union", "pad_to_multiple_of": 8}
EXPERTS = [{"model": "a", "prompts": ["w1"]}, {"model": "b", "prompts": ["w2"]}]
MIXED = {**MODELS, "mix": {"moe": {"base": "a", "experts": EXPERTS, "tokenizer": UNION}}}
BOTH = [{"model": "a"}, {"model": "b"}]
MERGED = {**MODELS, "one": {"merge": {"method": "linear", "models": BOTH, "tokenizer": UNION}}}

LAYERS = [{"model": "a", "layers": "0-0"}, {"model": "b", "layers": "1-1"}]
STACKED = {
    **MODELS,
    "tall": {"merge": {"method": "passthrough", "slices": LAYERS, "tokenizer": UNION}},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokens")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        for seed, name in enumerate("ab"):
            tiny.write_model(root / name, seed=seed, vocab=64 + 2 * seed)
        (root / "b/tokenizer.json").unlink()
        tiny.write_tokenizer(root / "b", 64)
        add(root / "b", "<|im_start|>", 64)
        add(root / "b", "<|im_end|>", 65)
        for name in "ab":
            files = {path.name: path.read_bytes() for path in (root / name).iterdir()}
            hub.add_repo(f"herd/{name}", files, license="apache-2.0")
        yield hub


def build(root, models):
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", models), root / "results")
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan, KEY)


@pytest.fixture(scope="module")
def mixed(hub, tmp_path_factory):
    return build(tmp_path_factory.mktemp("mixed"), MIXED)


@pytest.fixture(scope="module")
def merged(hub, tmp_path_factory):
    return build(tmp_path_factory.mktemp("merged"), MERGED)


def bad(found):
    """Return what did not pass; that a merge has no rows to compare is not counted."""
    return [one for one in found if one.outcome is not Outcome.PASSED and one.subject != "no slice"]


def lineage(folder):
    return [json.loads(line) for line in (folder / LINEAGE).read_text(encoding="utf-8").splitlines()]


def test_rows_of_a_mixture_are_compared_with_those_upstream(mixed):
    found = findings(mixed, "recomputed", sample_bytes=None)
    assert status(found) == 0, bad(found)
    rows = {
        line["slice"]: line["equals"]["source"] + str(line["equals"].get("rows", ""))
        for line in lineage(mixed)
        if line["tensor"] == EMBEDDINGS and "equals" in line
    }
    assert rows == {f"{EMBEDDINGS}[0:64]": "a", f"{EMBEDDINGS}[64:66]": "b[64, 66]"}
    again = {one.subject for one in found if one.level == "recomputed" and one.check == "made"}
    assert {f"{name}[66:72]" for name in (EMBEDDINGS, HEAD)} <= again


def test_rows_of_stacked_layers_are_compared_and_zeros_are_zero(hub, tmp_path):
    folder = build(tmp_path, STACKED)
    found = findings(folder, "recomputed", sample_bytes=None)
    assert status(found) == 0, bad(found)
    rows = {
        line["slice"]: line["equals"].get("rows", "all") if "equals" in line else line["made"]["action"]
        for line in lineage(folder)
        if line["slice"]
    }
    assert rows == {
        f"{EMBEDDINGS}[0:64]": "all",
        f"{EMBEDDINGS}[64:66]": "zeros",
        f"{EMBEDDINGS}[66:72]": "rows",
        f"{HEAD}[0:66]": "all",
        f"{HEAD}[66:72]": "rows",
    }


def test_rows_of_a_merge_are_made_again(merged):
    assert bad(findings(merged, "recomputed", sample_bytes=None)) == []
    made = next(line["made"] for line in lineage(merged) if line["tensor"] == EMBEDDINGS)
    assert made["parameters"]["rows"] == [
        [[0, 64, "row", 0, 0], [64, 2, "row", 1, 64], [66, 6, "padding"]],
        [[0, 66, "row", 1, 0], [66, 6, "padding"]],
    ]


@pytest.mark.parametrize(
    ("models", "level", "subjects"),
    [
        (MIXED, "equality", {f"{EMBEDDINGS}[64:66]", f"{HEAD}[64:66]"}),
        (MERGED, "recomputed", {EMBEDDINGS, HEAD}),
    ],
    ids=["mixture", "merge"],
)
def test_a_row_that_was_altered_is_named(hub, tmp_path, monkeypatch, models, level, subjects):
    line_up = aligned.line_up

    def lie(*arguments):
        made = line_up(*arguments)
        made[65] = -made[65]
        return made

    monkeypatch.setattr(aligned, "line_up", lie)
    folder = build(tmp_path, models)
    monkeypatch.undo()
    client.use(hub, tmp_path / "home", monkeypatch)
    assert status(findings(folder, "upstream")) == 0
    found = bad(findings(folder, level, sample_bytes=None))
    assert {(one.level, one.outcome) for one in found} == {(level, Outcome.FAILED)}
    assert {one.subject for one in found} == subjects


def test_rows_that_are_said_to_be_zero_are_zero(hub, tmp_path, monkeypatch):
    chosen = {"<|im_end|>": {"source": {"kind": "zero"}}}
    models = {**MODELS, "mix": {"moe": {**MIXED["mix"]["moe"], "tokenizer": {**UNION, "tokens": chosen}}}}
    line_up = aligned.line_up

    def lie(*arguments):
        made = line_up(*arguments)
        assert not made[65].any()
        made[65] = 1
        return made

    monkeypatch.setattr(aligned, "line_up", lie)
    folder = build(tmp_path, models)
    monkeypatch.undo()
    found = bad(findings(folder, "claims"))
    assert {(one.check, one.outcome) for one in found} == {("origins", Outcome.FAILED)}
    assert all("[65:66] is zero, and it is not" in one.detail for one in found)


def test_a_record_of_other_rows_than_planned_is_named(mixed, tmp_path):
    folder = shutil.copytree(mixed, tmp_path / "copy")
    with told(folder):
        for path in (folder / RECORDS).glob("mix.base*.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            for piece in record["tensors"][EMBEDDINGS]["slices"]:
                piece["rows"] = [row - 1 if row else row for row in piece["rows"]]
            path.write_text(json.dumps(record), encoding="utf-8")
    found = bad(findings(folder, "claims"))
    failed = [one for one in found if one.outcome is Outcome.FAILED]
    assert [(one.check, one.tensor) for one in failed] == [("steps", EMBEDDINGS)]
    assert "order of rows" in failed[0].detail


def test_a_lock_that_moves_tokens_to_other_rows_is_named(hub, tmp_path):
    recipe = tiny.write_recipe(tmp_path / "r.yaml", MIXED)
    lock = tiny.lock(recipe).vocabularies["mix"]
    assert lock.rows["b"] == ((0, 0, 66),)
    folder = build(tmp_path, MIXED)
    with told(folder):
        content = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        content["vocabularies"]["mix"]["rows"]["b"] = [[0, 0, 64], [64, 65, 1], [65, 64, 1]]
        (folder / LOCK).write_text(json.dumps(content), encoding="utf-8")
    found = [one for one in bad(findings(folder, "upstream")) if one.level == "upstream"]
    assert [(one.check, one.subject, one.outcome) for one in found] == [
        ("lock", "vocabularies", Outcome.FAILED)
    ]
    assert "mix.rows.b" in found[0].detail


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_was_altered_is_named(mixed, tmp_path, name):
    folder = shutil.copytree(mixed, tmp_path / "copy")
    before = (folder / name).read_bytes()
    with told(folder):
        (folder / name).unlink()
        (folder / name).write_bytes(before.replace(b"<|im_end|>", b"<|im_END|>"))
    assert hashlib.sha256(before).hexdigest() in (folder / LOCK).read_text(encoding="utf-8")
    found = bad(findings(folder, "claims"))
    assert {(one.check, one.subject) for one in found} == {("side files", name)}
