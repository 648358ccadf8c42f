"""``herdbook gc``: what no recipe refers to is found and removed, and nothing else."""

import json
import os

import pytest

from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.errors import StepError
from herdbook.layout import KEYED_FOLDERS
from herdbook.plan.jobs import result_jobs
from herdbook.tools import exclusive
from support import tiny


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch):
    monkeypatch.setattr(exclusive, "_held", {})


def write(folder, name, fraction, release="Tiny"):
    """Write a recipe of a lasered model, and its lock; return its path."""
    models = {
        "base": {"folder": "base"},
        "cut": {"laser": "base", "rank": {"fraction": fraction}, "matrices": ["self_attn.o_proj"]},
    }
    recipe = tiny.write_recipe(folder / f"{name}.yaml", models, release={"name": release})
    tiny.lock(recipe)
    return recipe


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two recipes; the first was built before its rank was changed, too."""
    monkeypatch.chdir(tmp_path)
    recipes = tmp_path / "recipes"
    tiny.write_model(recipes / "base", seed=1)
    write(recipes, "one", 0.9)
    tiny.build(recipes / "one.yaml", tmp_path / "results")
    write(recipes, "one", 0.5)
    write(recipes, "two", 0.7)
    for name in ("one", "two"):
        tiny.build(recipes / f"{name}.yaml", tmp_path / "results")
    return tmp_path


def files(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def planned(root, *names):
    found = {
        str(path.relative_to(root))
        for name in names
        for job in result_jobs(plans.load(root / f"recipes/{name}.yaml", root / "results"))
        for path in job.outputs
    }
    assert {path.split("/")[1] for path in found} <= set(KEYED_FOLDERS)
    return found


def gc(*arguments):
    return main(["gc", "--recipe", "recipes/one.yaml", *arguments])


def test_results_of_modules_are_named_and_not_taken_unasked(repository, capsys):
    """Their prefixes are in the workflow's Snakefile, and the recipes of a module may be anywhere."""
    (repository / "small").mkdir()
    (repository / "results").rename(repository / "small/results")
    for prefix in ("small", "deep/in"):
        (repository / prefix / "results/spent").mkdir(parents=True)
    (repository / "other/results").mkdir(parents=True)  # of another program
    before = files(repository)
    assert gc("--delete", "--yes") == 2
    assert files(repository) == before
    told = capsys.readouterr().err
    assert "results: no such folder" in told
    assert "--results deep/in/results, --results small/results" in told
    assert "other" not in told
    assert gc("--results", "small/results", "--delete", "--yes") == 0
    assert before - files(repository)


def test_only_earlier_keys_are_listed_and_only_a_request_removes_them(repository, capsys):
    results = repository / "results"
    mine = results / "shards/mine.txt"
    mine.write_text("not a result")
    written = results / "shards/.base.1-0123456789ab.safetensors.x.part"  # a process may be writing it
    written.touch()
    before = files(results)
    assert gc() == 0
    assert files(results) == before
    said = capsys.readouterr().out
    assert "recipes/one.yaml and recipes/two.yaml" in said
    assert "to remove them, add --delete" in said
    assert gc("--delete", "--yes") == 0
    left = files(repository)
    assert planned(repository, "one", "two") <= left
    gone = {path for path in before if f"results/{path}" not in left}
    listed = {line.split()[-1] for line in said.splitlines() if line.startswith(("shards", "models"))}
    assert {path.split("/")[1].removesuffix(".json").removesuffix(".safetensors") for path in gone} == listed
    assert len(listed) == 2  # the shard and the folder of the first rank
    assert all(path.startswith(("shards/cut.", "models/cut-")) for path in gone)
    assert {"results/shards/mine.txt", f"results/shards/{written.name}"} <= left
    assert any(path.startswith("results/decompositions/") for path in left)  # of the base, which is still cut
    capsys.readouterr()
    assert gc() == 0
    assert "0 results, 0 bytes" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["spent", ".made"])
def test_the_notes_of_jobs_go_with_their_results(repository, folder):
    notes = repository / "results" / folder / "laser"
    notes.mkdir(parents=True)
    for path in (repository / "results/shards").glob("cut.*.json"):
        (notes / path.name).touch()
    assert len(list(notes.iterdir())) == 3
    assert gc("--delete", "--yes") == 0
    kept = {path.name for path in (repository / "results/shards").glob("cut.*.json")}
    assert {path.name for path in notes.iterdir()} == kept
    assert len(kept) == 2


def test_what_a_removed_recipe_left(repository, capsys):
    for name in ("two.yaml", "two.lock.json"):
        (repository / "recipes" / name).unlink()
    release = repository / "results/Gone/release"
    release.mkdir(parents=True)
    (release / "model.safetensors").write_bytes(b"weights")
    for rule in ("card", "release"):  # the notes look like a release's folder
        notes = repository / "results/.made" / rule
        notes.mkdir(parents=True)
        (notes / "Gone.json").touch()
        (notes / "Tiny.json").touch()
    (repository / "results/notes").mkdir()
    (repository / "results/notes/release").touch()
    (repository / "results/notes/mine.txt").touch()
    assert gc("--delete", "--yes") == 0
    assert "release" in capsys.readouterr().out
    assert not (repository / "results/Gone").exists()
    notes = {
        str(path.relative_to(repository / "results/.made")) for path in repository.glob("results/.made/*/*")
    }
    assert notes == {"card/Tiny.json", "release/Tiny.json"}
    assert (repository / "results/notes/mine.txt").exists()  # not a release's folder
    made = {path for path in files(repository) if path.startswith("results/shards")}
    assert made == {path for path in planned(repository, "one") if "/shards/" in path}


def test_links_lead_nowhere(repository, tmp_path_factory):
    """A result that is a link is removed as a link; a folder of results that is one is left alone."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    old = f"old-{'0' * 12}"
    (elsewhere / old).mkdir()
    (elsewhere / old / "config.json").touch()
    (repository / "results/models" / old).symlink_to(elsewhere / old)
    (repository / "results/losses").symlink_to(elsewhere)
    assert gc("--delete", "--yes") == 0
    assert (elsewhere / old / "config.json").exists()
    assert not os.path.lexists(repository / "results/models" / old)


def test_space_that_links_elsewhere_take_is_not_freed(repository, capsys):
    """Derived by asking the file system before and after."""
    (shard,) = [
        path
        for path in (repository / "results/shards").glob("cut.*.safetensors")
        if f"results/shards/{path.name}" not in planned(repository, "one", "two")
    ]
    (repository / "kept").hardlink_to(shard)
    report = repository / "report.json"
    assert gc("--json", str(report), "--delete", "--yes") == 0
    content = json.loads(report.read_text())
    size = (repository / "kept").stat().st_size
    assert sum(one["size_bytes"] for one in content["results"]) == content["freed_bytes"] + size


def test_nothing_is_removed_while_a_build_runs(repository, capsys, monkeypatch):
    running = repository / "results/.running"
    exclusive.hold(running, "building recipes/one.yaml")
    other, exclusive._held = exclusive._held, {}  # as another process
    before = files(repository)
    assert gc("--delete", "--yes") == StepError.exit_status
    assert "is building recipes/one.yaml" in capsys.readouterr().err
    assert files(repository) == before
    assert gc() == 0  # looking is not hindered
    other.clear()


def test_a_recipe_that_cannot_be_planned_stops_it(repository, capsys):
    (repository / "recipes/two.yaml").write_text("models: {}\n")
    before = files(repository)
    assert gc("--delete", "--yes") == 2
    assert "what recipes/two.yaml refers to is unknown, so nothing was removed" in capsys.readouterr().err
    assert files(repository) - {"results/.running"} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--yes"], "--yes answers the question of --delete"),
        (["--delete"], "nobody can be asked"),
    ],
)
def test_what_cannot_be_asked_is_refused(repository, capsys, arguments, message):
    before = files(repository)
    assert gc(*arguments) == 2
    assert message in capsys.readouterr().err
    assert files(repository) - {"results/.running"} == before


def test_age_and_further_recipes_keep_results(repository, capsys, tmp_path_factory):
    assert gc("--older-than", "1h") == 0
    assert "0 results" in capsys.readouterr().out
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    tiny.write_model(elsewhere / "base", seed=1)
    kept = write(elsewhere, "three", 0.9)
    assert gc("--keep", str(kept)) == 0
    assert "0 results" in capsys.readouterr().out


def test_without_a_locked_recipe_nothing_is_known(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/Gone/release").mkdir(parents=True)
    assert gc("--delete", "--yes") == 2
    assert "no locked recipe was found" in capsys.readouterr().err
