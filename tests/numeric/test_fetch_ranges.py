"""How much of a source is fetched: of an expert on the Hub its MLPs alone, by range requests."""

import hashlib
import json

import pytest
from pytest_local_hub import LocalHub, client

from herdbook import files, needs
from herdbook import hub as reader
from herdbook import plan as plans
from herdbook.errors import DigestMismatchError, SourceError
from herdbook.hub import content
from herdbook.layout import CLAIMS
from herdbook.plan.operation import FetchRanges
from herdbook.plan.pruning import needed_whole
from herdbook.recipe import parse
from herdbook.steps.card.step import render_card
from herdbook.steps.fetch import step as fetch_step
from herdbook.weights.checkpoint import read_header, read_span
from herdbook.weights.record import read_record
from support import tiny
from support.verification import failures


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        for seed, name in enumerate(("base", "tuned")):
            folder = tiny.write_model(tmp_path / name, seed=seed, shards=2, layers=3)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            hub.add_repo(f"herd/{name}", files, license="mit")
        yield hub


def recipe(tmp_path, experts=("base", "tuned"), extra=None, **sections):
    prompts = ["w1", "w5"]
    moe = {
        "base": "base",
        "experts": [{"model": m, "prompts": [p]} for m, p in zip(experts, prompts, strict=True)],
    }
    models = {name: {"hub": f"herd/{name}"} for name in ("base", "tuned")}
    return tiny.write_recipe(
        tmp_path / "r.yaml", {**models, **(extra or {}), "mix": {"moe": moe}}, **sections
    )


def test_an_expert_gives_its_mlps_by_ranges(tmp_path, served, monkeypatch):
    monkeypatch.setattr(content, "RANGE_BYTES", 1000)  # so that tensors come in several pieces
    plan = tiny.build(recipe(tmp_path), tmp_path / "results")
    tuned = plan.nodes["tuned"]
    assert all(".mlp." in name for name in tuned.tensors)
    assert len(tuned.tensors) == 9
    assert all(isinstance(part.operation, FetchRanges) for part in tuned.parts)
    found = {
        name: read_span(plan.layout.shard(part), read_header(plan.layout.shard(part))[name])
        for name, (part, _) in tuned.tensors.items()
    }
    for path in sorted((tmp_path / "tuned").glob("*.safetensors")):
        for name, span in read_header(path).items():
            if name in found:
                assert found.pop(name) == read_span(path, span)
    assert not found
    # the mixture is the same as from folders, where whole files lie
    text = plan.recipe_path.read_text().replace("hub: herd/", "folder: ")
    (tmp_path / "f.yaml").write_text(text)
    other = tiny.build(tmp_path / "f.yaml", tmp_path / "other")
    for ours, theirs in zip(plan.released.parts, other.released.parts, strict=True):
        one, two = read_record(plan.layout.record(ours)), read_record(other.layout.record(theirs))
        assert one["file"] == two["file"]


def test_no_more_is_read_than_was_planned(tmp_path, served):
    path = recipe(tmp_path)
    tiny.lock(path)
    plan = plans.load(path, tmp_path / "results")
    whole = sum(file.size_bytes for file in plan.lock.sources["tuned"].files if "safetensors" in file.name)
    planned = sum(needs.fetch_bytes(plan, part) for part in plan.nodes["tuned"].parts)
    assert planned == sum(tensor.size_bytes for _, tensor in plan.nodes["tuned"].tensors.values())
    assert planned < 0.8 * whole
    before = len(served.requests)
    from herdbook.steps.fetch.step import fetch

    for part in plan.nodes["tuned"].parts:
        fetch(plan, part)
    ranges = [r for r in served.requests[before:] if r.method == "GET" and r.path.startswith("/lfs/")]
    assert ranges
    assert all(request.range for request in ranges)


def test_a_cut_connection_is_tried_again_from_the_piece_where_it_broke(tmp_path, served, monkeypatch):
    monkeypatch.setattr(content, "RANGE_BYTES", 1000)
    path = recipe(tmp_path)
    tiny.lock(path)
    plan = plans.load(path, tmp_path / "results")
    real, broken = content.read_range, []

    def failing(url, start, stop):
        if start > 200_000 or (len(broken) < 2 and stop - start == 1000):
            broken.append(start)
            raise OSError("cut")
        return real(url, start, stop)

    monkeypatch.setattr(content, "read_range", failing)
    from herdbook.steps.fetch.step import fetch

    fetch(plan, plan.nodes["tuned"].parts[0])
    assert len(set(broken)) == 1  # one piece, asked for three times
    assert plan.layout.record(plan.nodes["tuned"].parts[0]).exists()


def test_a_cached_file_is_taken_and_compared(tmp_path, served):
    path = recipe(tmp_path)
    tiny.lock(path)
    plan = plans.load(path, tmp_path / "results")
    from herdbook.steps.fetch.step import fetch

    locked = plan.lock.sources["tuned"]
    for file in locked.files:
        if file.name.endswith(".safetensors"):
            reader.download(
                "herd/tuned",
                locked.revision,
                reader.RemoteFile(file.name, file.size_bytes, file.sha256, None),
            )
    before = len(served.requests)
    for part in plan.nodes["tuned"].parts:
        fetch(plan, part)
    assert len(served.requests) == before


def test_bytes_that_are_refused_leave_nothing(tmp_path, served, monkeypatch):
    path = recipe(tmp_path)
    tiny.lock(path)
    plan = plans.load(path, tmp_path / "results")
    from herdbook.steps.fetch.step import fetch

    monkeypatch.setattr(content, "read_tensor", lambda *_: (_ for _ in ()).throw(SourceError("gone")))
    part = plan.nodes["tuned"].parts[0]
    with pytest.raises(SourceError, match="gone"):
        fetch(plan, part)
    assert not plan.layout.shard(part).exists()
    assert not plan.layout.record(part).exists()


def test_laser_of_an_expert_reaches_what_is_there(tmp_path, served):
    extra = {
        "cut": {"laser": "tuned", "rank": 4, "matrices": ["self_attn.q_proj", "mlp.up_proj"], "layers": "all"}
    }
    path = recipe(tmp_path, experts=("base", "cut"), extra=extra)
    plan = tiny.build(path, tmp_path / "results")
    assert all(".mlp." in name for name in plan.nodes["cut"].tensors)
    lasered = [t.name for part in plan.nodes["cut"].parts for t in part.tensors if t.action == "laser"]
    assert lasered == [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(3)]
    assert any("3 of the 6 matrices are neither fetched" in warning for warning in plan.warnings)


RECIPE = """
models:
  base: {hub: a/base}
  one: {hub: a/one}
  two: {hub: a/two}
  three: {hub: a/three}
  one-laser: {laser: one, rank: 4, matrices: all, layers: all}
  two-laser: {laser: two, rank: 4, matrices: all, layers: all, calibration: text, guard: {}}
  joined: {merge: {method: slerp, base: three, other: one}}
  mix: {moe: {base: base, gate: random, experts: [{model: EXPERT}, {model: base}]}}
calibration:
  text: {data: [t.jsonl], split: train}
release: {model: mix, name: M, license: mit}
"""


@pytest.mark.parametrize(
    ("expert", "whole"),
    [
        ("one-laser", set()),
        ("two-laser", {"two-laser", "two"}),
        ("joined", {"three", "one"}),
        ("one", set()),
    ],
)
def test_what_is_needed_whole(expert, whole):
    found = parse(RECIPE.replace("EXPERT", expert))
    needed = {"mix", "base", expert, "one", "two", "three"} if expert == "joined" else {"mix", "base", expert}
    assert needed_whole(found, needed) == {"mix", "base", *whole}


def test_what_is_measured_is_whole(tmp_path, served):
    text = recipe(tmp_path).read_text()
    found = parse(text + "\nevaluate: {tasks: [t.yaml], models: [tuned]}\n")
    assert needed_whole(found, {"mix", "base", "tuned"}) == {"mix", "base", "tuned"}


def test_a_release_of_it_verifies_and_says_what_was_read(tmp_path, served):
    merge = {"merge": {"method": "slerp", "base": "base", "other": "other"}}
    tiny.write_model(tmp_path / "other", seed=9, layers=3)
    extra = {"other": {"folder": "other", "license": "mit"}, "blend": merge}
    moe = {
        "base": "blend",
        "experts": [{"model": "tuned", "prompts": ["w1"]}, {"model": "base", "prompts": ["w2"]}],
    }
    models = {name: {"hub": f"herd/{name}"} for name in ("base", "tuned")}
    plan = tiny.build(
        tiny.write_recipe(tmp_path / "r.yaml", {**models, **extra, "mix": {"moe": moe}}), tmp_path / "results"
    )
    render_card(plan, plan.layout.card_folder)
    tiny.release(plan)
    assert failures(plan.layout.release_folder) == set()
    statement = json.loads((plan.layout.release_folder / CLAIMS).read_text().splitlines()[0])
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    read = {
        one["name"]: {
            about.get("read") for name, about in one["annotations"]["files"].items() if "model-" in name
        }
        for one in dependencies
        if "files" in one.get("annotations", {})
    }
    assert read["tuned"] == {"ranges of it"}
    assert read["base"] == {None}  # the merge needs all of it
    card = (plan.layout.card_folder / "README.md").read_text(encoding="utf-8")
    assert card.count("Only the MLP tensors of") == 1
    assert "slerp, 2 models" in card.replace("\\", "")
    assert "merged from several models" in card
    assert "base_model_relation: merge" in card


def test_laser_of_attention_alone_reaches_nothing_of_an_expert_and_the_card_says_so(tmp_path, served):
    extra = {"cut": {"laser": "tuned", "rank": 4, "matrices": ["self_attn.q_proj"], "layers": "all"}}
    plan = tiny.build(recipe(tmp_path, experts=("base", "cut"), extra=extra), tmp_path / "results")
    assert {t.action for part in plan.nodes["cut"].parts for t in part.tensors} == {"copy"}
    render_card(plan, plan.layout.card_folder)
    tiny.release(plan)
    assert failures(plan.layout.release_folder) == set()


def test_a_whole_file_of_the_hub_is_hashed_once_and_a_damaged_copy_is_found(tmp_path, served, monkeypatch):
    hashed = []

    def sha256_file(path):
        hashed.append(path)
        return files.sha256_file(path)

    for module in (content, fetch_step):
        monkeypatch.setattr(module, "sha256_file", sha256_file)
    path = tiny.write_recipe(tmp_path / "r.yaml", {"base": {"hub": "herd/base"}})
    plan = tiny.build(path, tmp_path / "results")
    assert not [path for path in hashed if path.suffix == ".safetensors"]
    shards = [plan.layout.shard(part) for part in plan.released.parts]
    records = [read_record(plan.layout.record(part)) for part in plan.released.parts]
    for shard, record in zip(shards, records, strict=True):
        assert record["file"]["sha256"] == hashlib.sha256(shard.read_bytes()).hexdigest()
    part, blob = plan.released.parts[0], shards[0].resolve()
    for damage in (lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b"\xff" * len(data)):
        blob.chmod(0o644)
        blob.write_bytes(damage(blob.read_bytes()))
        with pytest.raises(DigestMismatchError, match="removed"):
            fetch_step.fetch(plan, part)
        assert not blob.exists()
        fetch_step.fetch(plan, part)
        assert read_record(plan.layout.record(part)) == records[0]
