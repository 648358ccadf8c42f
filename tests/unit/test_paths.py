"""Paths of the author's machine: no file of a release contains any, and no result depends on one."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import yaml

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.lock.paths import problem
from herdbook.release.finding import Outcome
from herdbook.steps.card.step import render_card
from herdbook.steps.evaluate.step import evaluate
from support import tiny
from support.inputs.folders import TASK
from support.verification import findings, status

MODELS = {
    "base": {"folder": "../../models/base"},  # beside the project
    "linked": {"folder": "linked"},  # a link to a folder elsewhere
    "tuned": {"adapter": "../adapters/one", "on": "base"},
    "cut": {"laser": "tuned", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "linked", "prompts": ["w2"]}],
        }
    },
}
BOARD = {
    "snapshot": "board.csv",
    "title": "Board",
    "as_of": "2026-01-01",
    "source": "a page",
    "model_column": "model",
    "score_column": "score",
    "direction": "higher",
    "task": "words",
    "metric": "exact_match",
}


def write_project(home):
    """Write a project into a home as people have them: its models are beside it and elsewhere. Return the recipe."""
    project, elsewhere = home / "project", home.parents[1] / "data/of/models"
    tiny.write_model(home / "models/base", seed=1, shards=2)
    tiny.write_model(elsewhere / "other", seed=2)
    adapter = (
        tiny.write_adapter(project / "adapters/one", home / "models/base", seed=3) / "adapter_config.json"
    )
    about = json.loads(adapter.read_text(encoding="utf-8"))
    about["base_model_name_or_path"] = str(home / "models/base")  # as PEFT writes it
    adapter.write_text(json.dumps(about), encoding="utf-8")
    config = project / "config"
    (config / "tasks").mkdir(parents=True)
    (config / "linked").symlink_to(elsewhere / "other")
    (project / "text").mkdir()
    questions = [json.dumps({"question": f"w{number}", "answer": "w2"}) for number in range(2)]
    (project / "text/test.jsonl").write_text("\n".join(questions), encoding="utf-8")
    words = " ".join(f"w{(7 * number) % 50}" for number in range(400))
    (config / "words.jsonl").write_text(json.dumps({"text": words}) + "\n", encoding="utf-8")
    task = TASK | {
        "dataset_kwargs": {"data_files": {"test": "../../text/test.jsonl"}},
        "generation_kwargs": {"max_gen_toks": 2, "until": ["w5"]},
    }
    (config / "tasks/words.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    (config / "board.csv").write_text("model,score\na,0.5\nb,0.2\n", encoding="utf-8")
    return tiny.write_recipe(
        config / "recipe.yaml",
        MODELS,
        evaluate={"tasks": ["tasks/words.yaml"], "models": ["mix"]},
        calibration={"words": {"data": ["words.jsonl"], "split": "validation", "windows": 30, "tokens": 10}},
        routing={"texts": ["words"]},
        leaderboards={"board": BOARD},
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("machine") / "home/someone"


@pytest.fixture(scope="module")
def recipe(home):
    return write_project(home)


@pytest.fixture(scope="module")
def release(home, recipe):
    """A release with everything that names files: measurements, a report on routers, a leaderboard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        plan = tiny.build(recipe, home / "project/results")
        for item in plan.evaluations:
            evaluate(plan, item, 1)
        render_card(plan, plan.layout.card_folder)
        return tiny.release(plan)


def test_no_byte_of_a_release_shows_the_machine(home, release):
    root = home.parents[1]
    shown = [str(root), str(home), "home/someone", "of/models", str(Path.cwd()), socket.gethostname()]
    names = [path for path in release.rglob("*") if path.is_file()]
    assert {"provenance", "figures"} < {path.relative_to(release).parts[0] for path in names}
    for path in names:
        content = path.read_bytes()
        assert not [text for text in shown if text.encode() in content], path


def test_every_claim_follows_from_the_release_alone(release, tmp_path):
    assert status(findings(shutil.copytree(release, tmp_path / "elsewhere"))) == 0


@pytest.mark.parametrize("level", ["upstream", "rebuild"])
def test_a_verifier_is_told_that_a_folder_is_the_author_s(release, level):
    told = [found for found in findings(release, level) if found.level == level]
    about = [found.detail for found in told if "local folder of the author" in found.detail]
    assert about
    assert {found.outcome for found in told} <= {Outcome.UNVERIFIED, Outcome.PASSED}
    assert status(findings(release, level)) == 9


def test_the_lock_is_the_same_in_another_place_and_from_another_folder(
    home, recipe, release, tmp_path, monkeypatch
):
    expected = (release / "recipe.lock.json").read_bytes()
    copied = shutil.copytree(home.parent, tmp_path / "deeper/down/homes", symlinks=True) / "someone/project"
    for folder, name in (
        (copied, "config/recipe.yaml"),
        (copied / "config", "recipe.yaml"),
        (Path("/"), None),
    ):
        monkeypatch.chdir(folder)
        lock = locks.path_for(copied / "config/recipe.yaml")
        lock.unlink()
        assert main(["lock", name or str(copied / "config/recipe.yaml")]) == 0
        assert lock.read_bytes() == expected
    keys = [
        {name: node.key for name, node in plans.load(path).nodes.items()}
        for path in (recipe, copied / "config/recipe.yaml")
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    "path", ["base", "./base", "../../models/base", "a b/c", "x~/base", "./~x", "x/../base"]
)
def test_relative_paths_are_fine(path, tmp_path):
    assert problem(path, tmp_path) is None


@pytest.mark.parametrize(
    "path", ["/models/base", "~/base", "~me/base", "C:\\base", "C:/base", "\\\\host\\base", "a\\b"]
)
def test_paths_of_one_machine_are_not(path, tmp_path):
    assert path in problem(path, tmp_path)


def test_the_advice_is_a_path_or_a_link_that_works(tmp_path, monkeypatch):
    """Whatever the advice names leads to the same folder."""
    beside = tmp_path / "home/me/project/config"
    beside.mkdir(parents=True)
    near = tmp_path / "home/me/models/base"
    assert problem(str(near), beside).endswith(": name it ../../models/base")
    monkeypatch.setenv("HOME", str(tmp_path / "home/me"))
    assert problem("~/models/base", beside).endswith(": name it ../../models/base")
    up = "../" * len(beside.parts[1:])
    assert os.path.normpath(beside / f"{up}data/a b") == "/data/a b"
    for path in ("/data/a b", f"{up}data/a b"):
        linking = f"link it (`ln -s '/data/a b' '{beside}/a b'`), and name it a b"
        assert problem(path, beside).endswith(f": {linking}")
    assert problem(f"{up[3:]}data", beside) is None  # inside the first folder of the path
    assert problem("~nobody-here/base", beside).endswith(": name it ./~nobody-here/base")
