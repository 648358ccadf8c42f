"""Why a job would run: what differs between plan and results, as sentences, down to the first cause."""

import base64
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from herdbook import plan as plans
from herdbook.changes import changed_parameters
from herdbook.cli import main as cli
from herdbook.explain import difference
from herdbook.plan import parsed as codes
from herdbook.plan.evaluate import EVALUATE_CODE
from herdbook.plan.jobs import jobs
from herdbook.steps.card.step import render_card
from support import tiny

MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "cut",
            "experts": [
                {"model": "cut", "prompts": ["w1 w2 w3"]},
                {"model": "other", "prompts": ["w9 w8"]},
            ],
        }
    },
}
REBUILT, UP_TO_DATE = "would be rebuilt", "up to date"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Make a release and verify it, without Snakemake."""
    root = tmp_path_factory.mktemp("released")
    tiny.write_model(root / "base", seed=1)
    tiny.write_model(root / "other", seed=2)
    recipe = tiny.write_recipe(root / "r.yaml", MODELS)
    here = Path.cwd()
    os.chdir(root)
    try:
        plan = tiny.build(recipe.relative_to(root), (root / "results").relative_to(root))
        render_card(plan, plan.layout.card_folder)
        tiny.release(plan)
        reports = ["--json", str(plan.layout.verification), "--page", str(plan.layout.page)]
        assert cli.main(["verify", str(plan.layout.release_folder), *reports]) == 0
        note(job for job in jobs(plan) if not job.id)
    finally:
        os.chdir(here)
    return root


def note(made):
    """Note keys as Snakemake does (tests/workflow/test_show.py has its own notes)."""
    for job in made:
        path = Path(".snakemake/metadata") / base64.b64encode(str(job.outputs[0]).encode()).decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"rule": job.rule, "params": ["'folder'", repr(job.key)]}), encoding="utf-8"
        )


@pytest.fixture
def root(released, tmp_path, monkeypatch):
    for variable in ("HERDBOOK_RECIPE", "HERDBOOK_SIGNING_KEY"):
        monkeypatch.delenv(variable, raising=False)
    shutil.copytree(released, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def explain(root, capsys):
    """Return a function that explains a target: what is said of each job (by its name without the key), and why."""

    def say(target):
        capsys.readouterr()
        assert cli.main(["explain", "--recipe", "r.yaml", str(target)]) == 0
        found, job = {}, ""
        for line in capsys.readouterr().out.splitlines():
            if line.startswith("  "):
                found[job][1].append(line.strip())
            else:
                name, _, verdict = line.partition(": ")
                rule, _, name = name.partition(" ")
                job = f"{rule} {name.rpartition('-')[0]}".strip()
                found[job] = (verdict, [])
        return found

    return say


def edit(root, change):
    path = root / "r.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(recipe)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    tiny.lock(path)


def made(found):
    return {
        job
        for job, (verdict, _) in found.items()
        if verdict.startswith(("would be built", "would be rebuilt"))
    }


def test_everything_is_up_to_date(explain):
    said = explain("all")
    assert {verdict for verdict, _ in said.values()} == {UP_TO_DATE}
    assert {"fetch base.1", "laser cut.1", "moe mix.routers", "routing mix", "card", "verify"} <= said.keys()


def test_a_rank(root, explain):
    edit(root, lambda recipe: recipe["models"]["cut"].update(rank={"fraction": 0.75}))
    said = explain("all")
    old = next((root / "results/shards").glob("cut.1-*.json")).stem
    assert said["laser cut.1"][0] == REBUILT
    cause = "parameter `rank.fraction` was 0.5, is 0.75"
    assert said["laser cut.1"][1] == [f"{cause} (compared with {old})"]
    (because,) = said["moe mix.expert1-1"][1]
    assert because.startswith("laser cut.1-")
    assert because.endswith(" will be rebuilt")  # why stands above
    (because,) = explain("mix.expert1")["moe mix.expert1-1"][1]
    assert because.endswith(f" will be rebuilt, because {cause}")
    (because,) = explain("routing")["routing mix"][1]  # down to the first cause
    assert "laser cut.1-" in because
    assert because.endswith(f"by way of {because.partition('by way of ')[2].split(',')[0]}, because {cause}")
    assert said["moe mix.expert2-1"] == (UP_TO_DATE, [])
    assert {"fetch base.1", "fetch other.1"}.isdisjoint(made(said))


def test_another_kind_of_rank(root, explain):
    edit(root, lambda recipe: recipe["models"]["cut"].update(rank="mp-edge"))
    assert 'parameter `rank` was {"fraction": 0.5}, is "mp-edge"' in explain("cut")["laser cut.1"][1][0]


def test_a_prompt(root, explain):
    edit(root, lambda recipe: recipe["models"]["mix"]["moe"]["experts"][1].update(prompts=["w5"]))
    said = explain("mix")
    assert made(said) == {"moe mix.routers", "assemble mix", "routing mix"}
    assert said["moe mix.routers"][1][0].startswith(
        'parameter `prompts.1.0.0` was "w9 w8", is "w5" (compared with '
    )


def test_swapped_experts(root, explain):
    edit(root, lambda recipe: recipe["models"]["mix"]["moe"]["experts"].reverse())
    said = explain("moe")
    assert made(said) == {"moe mix.expert1-1", "moe mix.expert2-1", "moe mix.routers"}
    (reason,) = said["moe mix.expert1-1"][1]
    assert reason.startswith("it was made from cut (")
    assert "now from other (" in reason


def test_another_matrix(root, explain):
    edit(root, lambda recipe: recipe["models"]["cut"].update(matrices=["mlp.down_proj", "mlp.up_proj"]))
    reason = explain("cut")["laser cut.1"][1][0]
    assert reason.startswith(
        "2 tensors changed their action from copy to laser: model.layers.0.mlp.up_proj.weight, …"
    )


def test_a_source(root, explain):
    path = root / "other/model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] += 1
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    tiny.lock(root / "r.yaml")
    said = explain("all")
    (reason,) = said["fetch other.1"][1]
    assert reason.startswith('parameter `file` was "')
    (because,) = explain("mix.expert2")["moe mix.expert2-1"][1]
    assert because.startswith("fetch other.1-")
    assert "because parameter `file` was" in because
    assert {"fetch base.1", "laser cut.1", "moe mix.expert1-1"}.isdisjoint(made(said))


def test_a_version(explain, monkeypatch):
    real = codes.package_version
    now = real("torch")
    monkeypatch.setattr(codes, "package_version", lambda name: "999.1" if name == "torch" else real(name))
    said = explain("all")
    assert said["laser cut.1"][1][0].startswith(f"torch {now} -> 999.1 (compared with ")
    assert f"torch {now} -> 999.1" in " ".join(said["moe mix.routers"][1])
    assert (
        "because torch" in explain("mix.expert1")["moe mix.expert1-1"][1][0]
    )  # a copy, but of what is computed again
    assert said["moe mix.expert2-1"] == (UP_TO_DATE, [])


def test_code(explain, monkeypatch):
    real = codes.module_digest
    monkeypatch.setattr(
        codes, "module_digest", lambda name: "0" * 64 if name == "herdbook.steps.moe.ridge" else real(name)
    )
    said = explain("all")
    assert said["moe mix.routers"][1][0].startswith("code of herdbook.steps.moe.ridge changed")
    assert {"laser cut.1", "moe mix.base-1", "moe mix.expert1-1"}.isdisjoint(made(said))


def test_a_missing_file_that_is_wanted_and_one_that_is_not(root, explain):
    """As in Snakemake: a missing file is rebuilt if a job that runs reads it."""
    (next((root / "results/shards").glob("base.1-*.safetensors"))).unlink()
    said = explain("all")
    assert made(said) == set()
    assert said["fetch base.1"][0] == "missing, but not needed"
    edit(root, lambda recipe: recipe["models"]["cut"].update(rank={"fraction": 0.75}))
    said = explain("base")
    assert said["fetch base.1"] == ("would be built", ["no result exists for this or any earlier key"])


def test_an_existing_result_of_a_rebuilt_shard_is_kept(root, explain):
    """A missing shard that one job needs is rebuilt; results made from it contain their key in their names and stay valid."""
    (next((root / "results/shards").glob("cut.1-*.safetensors"))).unlink()
    edit(root, lambda recipe: recipe["models"]["mix"]["moe"]["experts"].reverse())
    said = explain("all")
    assert {"laser cut.1", "card"} <= made(said)
    assert said["moe mix.base-1"] == (UP_TO_DATE, [])
    assert said["laser cut.1"][1] == ["no result exists for this or any earlier key"]


def test_first_build(root, explain):
    shutil.rmtree(root / "results")
    said = explain("all")
    assert made(said) == set(said)
    assert said["moe mix.routers"] == ("would be built", ["no result exists for this or any earlier key"])


def test_a_measurement(tmp_path, monkeypatch, capsys):
    """Against a record of another limit and of another lm-eval."""
    monkeypatch.chdir(tmp_path)
    tiny.write_model(tmp_path / "base")
    (tmp_path / "text.jsonl").write_text('{"text": "w1"}\n', encoding="utf-8")
    task = {
        "task": "held_out",
        "output_type": "loglikelihood_rolling",
        "dataset_kwargs": {"data_files": {"test": "text.jsonl"}},
        "metadata": {"title": "Text"},
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    evaluate = {"tasks": ["task.yaml"], "models": ["base"], "limit": 1}
    recipe = tiny.write_recipe(tmp_path / "r.yaml", {"base": {"folder": "base"}}, evaluate=evaluate)
    tiny.lock(recipe)
    batch = plans.load(recipe).recipe.evaluate.batch_size
    code = {**EVALUATE_CODE.describe().json, "lm_eval": "0.1"}
    record = {
        "key": "a" * 64,
        "settings": {"limit": 5, "batch_size": batch, "dtype": "float32"},
        "code": code,
    }
    place = tmp_path / "results/evaluations/base-aaaaaaaaaaaa.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(record), encoding="utf-8")
    assert cli.main(["explain", "--recipe", "r.yaml", "evaluate"]) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    now = importlib.metadata.version("lm_eval")
    assert said[1:3] == [
        "parameter `limit` was 5, is 1 (compared with base-aaaaaaaaaaaa)",
        f"lm_eval 0.1 -> {now} (compared with base-aaaaaaaaaaaa)",
    ]


def test_there_and_back(root, explain):
    text = (root / "r.yaml").read_text(encoding="utf-8")
    edit(root, lambda recipe: recipe["models"]["cut"].update(rank={"fraction": 0.75}))
    assert made(explain("cut"))
    (root / "r.yaml").write_text(text, encoding="utf-8")
    tiny.lock(root / "r.yaml")
    assert made(explain("all")) == set()


def test_the_latest_of_several_older_records_is_taken(root, explain):
    edit(root, lambda recipe: recipe["models"]["cut"].update(rank={"fraction": 0.75}))
    tiny.build(root / "r.yaml", root / "results")
    edit(root, lambda recipe: recipe["models"]["cut"].update(rank={"fraction": 0.25}))
    assert explain("cut")["laser cut.1"][1][0].startswith("parameter `rank.fraction` was 0.75, is 0.25")


def test_a_model_whose_name_begins_like_another_s_is_not_it(root, explain):
    """``cut.1-…`` of model ``cut`` is no older ``cut.1`` of another, nor is a damaged record one."""
    shards = root / "results/shards"
    shutil.copy(next(shards.glob("cut.1-*.json")), shards / "cut.1-more-0123456789ab.json")
    (shards / "cut.1-aaaaaaaaaaaa.json").write_text("{", encoding="utf-8")
    edit(root, lambda recipe: recipe["models"]["cut"].update(rank={"fraction": 0.75}))
    assert "compared with cut.1-more" not in explain("cut")["laser cut.1"][1][0]
    assert "compared with cut.1-aaa" not in explain("cut")["laser cut.1"][1][0]


def test_targets(root, explain, capsys):
    shard = next((root / "results/shards").glob("mix.routers-*.safetensors"))
    assert set(explain(shard.relative_to(root))) == {"moe mix.routers"}
    assert set(explain(shard)) == {"moe mix.routers"}
    assert set(explain(shard.stem)) == {"moe mix.routers"}
    assert set(explain("mix.expert1")) == {"moe mix.expert1-1"}
    assert set(explain("laser")) == {"laser cut.1"}
    assert set(explain("results/Tiny/release/README.md")) == {"release"}
    assert set(explain(next((root / "results/Tiny/release").glob("*.safetensors")))) == {"release"}
    (root / "results/shards/stray.json").touch()
    assert cli.main(["explain", "--recipe", "r.yaml", "results/shards/stray.json"]) == 2
    assert "results/shards/stray.json: no job of this recipe makes this file" in capsys.readouterr().err
    assert cli.main(["explain", "--recipe", "r.yaml", "lasr"]) == 2
    assert "no target has the name 'lasr'; did you mean 'laser'?" in capsys.readouterr().err


def test_a_recipe_is_no_target(root, capsys):
    shutil.copy("r.yaml", "other.yaml")
    assert cli.main(["explain", "other.yaml", "--recipe", "r.yaml"]) == 2
    assert "is a recipe, and no target in one; name it with --recipe other.yaml" in capsys.readouterr().err


def test_differences_of_parameters():
    def said(before, now):
        return list(changed_parameters(before, now))

    assert said({"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 3]}}) == [
        "parameter `b.c.1` was 2, is 3"
    ]
    assert said({"a": 1}, {"b": None}) == [
        "parameter `a` was 1, is now absent",
        "parameter `b` is new: null",
    ]
    assert said({"a": [1]}, {"a": [1, 2]}) == ["parameter `a` was [1], is [1, 2]"]
    assert said({"a": "0" * 64}, {"a": "1" * 64}) == ['parameter `a` was "000000000000…", is "111111111111…"']
    (long,) = said({"a": "x"}, {"a": "y" * 10_000})
    assert len(long) < 150


def test_differences_of_code():
    said = list(
        difference.code({"a.b": "1", "torch": "2.12", "gone": "1"}, {"a.b": "2", "torch": "2.13", "n.w": "3"})
    )
    assert said == [
        "code of a.b changed",
        "gone is no longer part of the key",
        "code of n.w is now part of the key",
        "torch 2.12 -> 2.13",
    ]


def test_no_torch_is_loaded(root):
    script = (
        "import sys\nfrom herdbook.cli.main import main\n"
        "status = main(['explain', '--recipe', 'r.yaml', 'all'])\n"
        "sys.exit(status or len({'torch', 'transformers', 'gguf', 'snakemake'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True, capture_output=True)


def test_a_merge_s_weight_is_named_once_for_all_tensors(tmp_path, monkeypatch, capsys):
    """One change of the recipe is one line, for the shard and, where that was not shown, for what is made from it."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("base", "other")):
        tiny.write_model(tmp_path / name, seed=seed)
    models = {name: {"folder": name} for name in ("base", "other")}
    entries = [{"model": "base", "weight": 0.3}, {"model": "other", "weight": 0.7}]
    mix = {"merge": {"method": "linear", "models": entries, "normalize": False}}
    tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models | {"mix": mix}), tmp_path / "results")

    def said(target, first):
        entries[0]["weight"] = first
        tiny.lock(tiny.write_recipe(tmp_path / "r.yaml", models | {"mix": mix}))
        capsys.readouterr()
        assert cli.main(["explain", "--recipe", "r.yaml", target]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "0.3" in line or "merge mix" in line]

    cause = "parameter `weights.0` was 0.3, is 0.4"
    shard, why, *dependent = said("all", 0.4)
    assert shard.startswith("merge mix.1-")
    assert why.startswith(f"  {cause} (compared with ")
    assert dependent
    assert not any("because" in line for line in dependent)
    assert all(line.endswith(f"will be rebuilt, because {cause}") for line in said("assemble", 0.4))
    assert len(said("mix", [0.3, 0.4])) < 8  # a number for each layer


def test_differences_of_single_tensors():
    def said(before, now):
        return list(difference.parameters({"a": 1, "values": before}, {"a": 2, "values": now}))[1:]

    assert said({"x": {"t": 0.5}, "y": {"t": 0.5}}, {"x": {"t": 0.6}, "y": {"t": 0.6}}) == [
        "parameter `t` was 0.5, is 0.6"
    ]
    assert said({"x": {"t": 0.5}, "y": {"t": 0.5}}, {"x": {"t": 0.5}, "y": {"t": 0.6}}) == [
        "parameter `t` of 1 tensor was 0.5, is 0.6: y"
    ]
    assert said({"x": {"t": 0.5}, "y": {"t": 0.5}}, {"x": {"t": 0.6}, "y": {"t": 0.7}}) == [
        "parameter `t` of 2 tensors differs: of x it was 0.5, is 0.6; …"
    ]
    assert said({"x": {"t": 0.5}}, {"x": {"t": 0.5}, "y": {"t": 0.5}}) == []  # told as a tensor more
