"""Equal content under two names: it is made once, both names lead to it, and what is said names both sources."""

import json
import shutil
from pathlib import Path

import pytest
from pytest_local_hub import LocalHub, client
from safetensors.torch import load_file

from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.files import sha256_file
from herdbook.layout import LINEAGE
from support import tiny
from support.project import Project, shards_made

pytestmark = pytest.mark.slow
LASER = {"rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]}
SEARCH = {"rank": {"fraction": 0.9}, "matrices": ["mlp.down_proj"], "select": {"count": 1, "by": "snr"}}
MODELS = {
    "base": {"folder": "base"},
    "tuned": {"folder": "tuned"},  # its first file is the base's
    "mirror": {"folder": "mirror"},  # all files are the base's
    "cut": {"laser": "base", **LASER},
    "cut-mirror": {"laser": "mirror", **LASER},
    "cut-again": {"laser": "base", **LASER},
    "searched": {"laser": "base", **SEARCH},
    "searched-mirror": {"laser": "mirror", **SEARCH},
    "folded": {"adapter": "adapter", "on": "base"},
    "folded-mirror": {"adapter": "copy-of-adapter", "on": "mirror"},
    "mix": {
        "moe": {
            "base": "base",
            "gate": "hidden",
            "experts": [
                {"model": name, "prompts": [f"w{place} w1"]}
                for place, name in enumerate(
                    (
                        "tuned",
                        "mirror",
                        "cut",
                        "cut-mirror",
                        "searched",
                        "searched-mirror",
                        "folded",
                        "folded-mirror",
                    ),
                    5,
                )
            ],
        }
    },
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build a release in which every kind of thing has two names."""
    project = Project(tmp_path_factory.mktemp("equal") / "herd")
    folder = project.recipe.parent
    tiny.write_model(folder / "base", seed=1, shards=2)
    tiny.write_model(folder / "tuned", seed=2, shards=2)
    first = "model-00001-of-00002.safetensors"
    shutil.copyfile(folder / "base" / first, folder / "tuned" / first)
    shutil.copytree(folder / "base", folder / "mirror")
    tiny.write_adapter(folder / "adapter", folder / "base", seed=3)
    shutil.copytree(folder / "adapter", folder / "copy-of-adapter")
    tiny.write_task(folder / "task.yaml")
    tiny.write_recipe(
        project.recipe,
        MODELS,
        evaluate={"tasks": ["task.yaml"], "models": ["base", "mirror", "cut-again"], "limit": 1},
    )
    tiny.lock(project.recipe)
    project.made = project.run()
    return project


@pytest.fixture(scope="module")
def plan(built):
    return plans.load(built.recipe, built.results)


def test_what_is_equal_is_made_once(built):
    made = shards_made(built.made)
    assert {name for name in made if not name.startswith("mix")} == {
        "base.1", "base.2", "tuned.2", "cut.1", "searched.1", "folded.1",
    }  # fmt: skip
    results = sorted(
        (rule, Path(path).name.rpartition("-")[0])
        for rule, path in built.made
        if rule in {"evaluate_one", "search"}
    )
    assert results == [("evaluate_one", "base"), ("evaluate_one", "cut-again"), ("search", "searched")]
    assert json.loads((built.results / "Tiny/verification.json").read_text())["outcome"] == "passed"
    assert built.run() == set()


def test_both_names_lead_to_it(built, plan):
    for name, other in {
        "base": "mirror",
        "cut": "cut-mirror",
        "searched": "searched-mirror",
        "folded": "folded-mirror",
    }.items():
        folder = plan.layout.folder(plan.nodes[name])
        assert plan.layout.folder(plan.nodes[other]) == folder
        assert folder.is_dir() == (name in {"base", "cut"})  # nobody reads the others as a whole
        assert plan.nodes[other].made_as == name
    assert plan.nodes["tuned"].made_as == ""
    linked = plan.layout.folder(plan.nodes["base"]) / "model-00001-of-00002.safetensors"
    assert linked.resolve() == plan.layout.shard(plan.nodes["base"].parts[0]).resolve()
    assert linked.read_bytes() == (built.recipe.parent / "base" / linked.name).read_bytes()
    measured = {item.name: plan.layout.evaluation(item) for item in plan.evaluations}
    assert measured["mirror"] == measured["base"]
    assert measured["cut-again"].exists()


def test_the_experts_are_those_of_their_names(built, plan):
    """Against the sources themselves."""
    released = built.released_weights()
    kept = (
        "model.layers.0.block_sparse_moe.experts.{}.w1.weight".format
    )  # gate_proj: neither LASER nor a search cuts it
    for place, name in enumerate(("tuned", "mirror", "base", "mirror")):
        folder = built.recipe.parent / name
        source = {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}
        assert released[kept(place)].equal(source["model.layers.0.mlp.gate_proj.weight"])


def test_what_is_said_names_both_sources(built, plan):
    release = plan.layout.release_folder
    slices = [json.loads(line) for line in (release / LINEAGE).read_text().splitlines()]
    embedding = next(one for one in slices if one["tensor"] == "model.embed_tokens.weight")
    said = [embedding["equals"], *embedding["also"]]
    assert {one["source"] for one in said} in ({"base", "mirror"}, {"base", "tuned", "mirror"})
    for one in said:
        source = load_file(built.recipe.parent / one["source"] / one["file"])
        assert one["tensor"] in source
    statement = json.loads((release / "claims.jsonl").read_text().splitlines()[0])
    build = statement["predicate"]["buildDefinition"]
    assert {"base", "mirror", "tuned"} <= {entry["name"] for entry in build["resolvedDependencies"]}
    keys = build["internalParameters"]["keys"]
    assert keys["base"] == keys["mirror"] != keys["tuned"]
    card = (release / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card or f"| {name}" in card for name in ("base", "mirror", "tuned"))
    bill = json.loads((release / "provenance/bom-1.6.cdx.json").read_text())
    ancestors = bill["metadata"]["component"]["pedigree"]["ancestors"]
    named = {
        said["value"] for one in ancestors for said in one["properties"] if said["name"] == "herdbook:model"
    }
    assert {"base", "mirror", "tuned", "adapter of folded", "adapter of folded-mirror"} <= named


def test_commands_know_both_names(built, plan, capsys, monkeypatch):
    monkeypatch.chdir(built.root)
    recipe = ["--recipe", str(built.recipe)]
    said = {}
    for name in ("folded.1", "folded-mirror.1", "mirror", "base"):
        assert main(["explain", name, *recipe]) == 0
        said[name] = capsys.readouterr().out
    assert said["folded.1"] == said["folded-mirror.1"] != ""
    assert set(said["mirror"].splitlines()) <= set(said["base"].splitlines())
    shard = plan.layout.shard(plan.nodes["folded"].parts[0])
    before = sha256_file(shard)
    assert main(["adapter", "folded-mirror.1", *recipe]) == 0
    assert sha256_file(shard) == before


def test_revisions_of_the_same_bytes(tmp_path, monkeypatch):
    project = Project(tmp_path / "herd")
    folder = tiny.write_model(tmp_path / "model", seed=1)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    weighed = [{"model": name, "weight": 1} for name in ("old", "new")]
    models = {
        "old": {"hub": "herd/base@one"},
        "new": {"hub": "herd/base@two"},
        "both": {"merge": {"method": "linear", "models": weighed}},
    }
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        hub.add_repo("herd/base", files, license="mit")
        hub.tag("herd/base", "one")
        hub.commit("herd/base", {"NOTES.md": b"other words"})
        hub.tag("herd/base", "two")
        tiny.write_recipe(project.recipe, models)
        lock = tiny.lock(project.recipe)
        made = shards_made(project.run())
    assert len({source.revision for source in lock.sources.values()}) == 2
    assert made == {"old.1", "both.1"}
    release = project.results / "Tiny/release"
    statement = json.loads((release / "claims.jsonl").read_text().splitlines()[0])
    uris = {entry.get("uri") for entry in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert {source.uri for source in lock.sources.values()} <= uris
    card = (release / "README.md").read_text(encoding="utf-8")
    assert all(source.revision in card for source in lock.sources.values())
