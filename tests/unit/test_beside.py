"""What a job would not find beside the recipe is told by name, before anything runs."""

import json
import shutil

import pytest

from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.plan.beside import missing_beside
from herdbook.plan.jobs import all_jobs
from support import tiny

MODELS = {
    "base": {"folder": "base"},
    "tuned": {"adapter": "adapters/own", "on": "base"},
    "cut": {
        "laser": "tuned",
        "rank": {"fraction": 0.5},
        "matrices": ["mlp.up_proj", "mlp.down_proj"],
        "calibration": "tuning",
        "guard": {},
    },
    "two": {
        "moe": {
            "base": "base",
            "experts": [{"model": "base", "prompts": ["w1"]}, {"model": "cut", "prompts": ["w2"]}],
        }
    },
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A locked recipe that names files of every kind."""
    folder = tmp_path_factory.mktemp("beside") / "config"
    tiny.write_model(folder / "base")
    tiny.write_adapter(folder / "adapters/own", folder / "base")
    tiny.write_task(folder / "tasks/words.yaml", data="words.jsonl")
    for name in ("tuning", "routing", "matrix", "loss"):
        lines = [json.dumps({"text": " ".join([f"{name}", *(f"w{number}" for number in range(40))])})] * 4
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = {
        name: {"data": [f"{name}.jsonl"], "split": "validation" if name == "loss" else "train", "tokens": 64}
        for name in ("tuning", "routing", "matrix", "loss")
    }
    recipe = tiny.write_recipe(
        folder / "r.yaml",
        MODELS,
        evaluate={"tasks": ["tasks/words.yaml"], "models": ["two"]},
        calibration=texts,
        routing={"texts": ["routing"]},
        quantize={"methods": ["Q8_0"], "imatrix": {"texts": ["matrix"]}, "loss": {"texts": ["loss"]}},
    )
    tiny.lock(recipe)
    return recipe


@pytest.fixture
def recipe(built, tmp_path):
    shutil.copytree(built.parent, tmp_path / "config")
    return tmp_path / "config" / built.name


def lost(recipe):
    """Return what jobs miss, by their rules."""
    plan = plans.load(recipe)
    found = {}
    for job in all_jobs(plan):
        for line in missing_beside(plan, job):
            found.setdefault(job.rule, set()).add(line.partition(". Put ")[0])
    return found


def test_nothing_is_missed_that_is_there(recipe):
    assert lost(recipe) == {}


@pytest.mark.parametrize(
    ("name", "rules", "where"),
    [
        ("base/model.safetensors", {"fetch"}, "models.base.folder"),
        ("base/tokenizer.json", {"files"}, "models.base.folder"),
        ("adapters/own/adapter_config.json", {"adapter"}, "models.tuned.adapter"),
        ("tasks/words.yaml", {"evaluate"}, "evaluate.tasks: held_out"),
        ("tasks/words.jsonl", {"evaluate"}, "evaluate.tasks: held_out"),
        ("tuning.jsonl", {"search"}, "calibration.tuning"),
        ("routing.jsonl", {"routing"}, "calibration.routing"),
        ("matrix.jsonl", {"imatrix"}, "calibration.matrix"),
        ("loss.jsonl", {"reference", "loss"}, "calibration.loss"),
    ],
)
def test_the_jobs_that_read_a_file_miss_it(recipe, name, rules, where):
    (recipe.parent / name).unlink()
    assert lost(recipe) == {rule: {f"{where}: {recipe.parent / name} is missing"} for rule in rules}


def test_a_folder_that_is_missing_is_told_once_with_its_files(recipe):
    shutil.rmtree(recipe.parent / "adapters")
    files = [
        recipe.parent / "adapters/own" / f"adapter_{name}" for name in ("config.json", "model.safetensors")
    ]
    assert lost(recipe) == {"adapter": {f"models.tuned.adapter: {files[0]} and {files[1]} are missing"}}


def test_the_plan_warns_of_all_files_unless_it_is_for_another_machine(recipe, monkeypatch, capsys):
    monkeypatch.chdir(recipe.parent)
    shutil.rmtree(recipe.parent / "adapters")
    (recipe.parent / "tasks/words.jsonl").unlink()
    main(["plan", "r.yaml"])
    said = capsys.readouterr().err
    assert (
        "warning: on this machine: models.tuned.adapter: adapters/own/adapter_config.json and adapters/own/"
        in said
    )
    assert (
        "warning: on this machine: evaluate.tasks: held_out: tasks/words.jsonl is missing. Put it there"
        in said
    )
    main(["plan", "r.yaml", "--elsewhere"])
    assert "is missing" not in capsys.readouterr().err
