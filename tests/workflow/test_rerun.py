"""What Snakemake runs again after a change: exactly what depends on it. Each test runs the real workflow, or asks it."""

import json
import shutil

import pytest
import yaml

from herdbook.steps.card.step import render_card
from support import rebuilds, tiny
from support.project import shards_made

AFTER_SHARDS = {"card", "release", "attest", "verify"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build a small release once."""
    project = rebuilds.herd(tmp_path_factory.mktemp("built") / "herd")
    project.run()
    return project


@pytest.fixture
def project(built, tmp_path):
    """Give each test a copy of the build, times and links kept."""
    return built.copy(tmp_path / "copy")


def logs_of_releases(project):
    """Return the names of the logs of each rule that has one job for a release."""
    return {rule: {log.name for log in (project.root / "logs" / rule).iterdir()} for rule in AFTER_SHARDS}


def test_first_build_makes_everything_and_then_nothing_is_to_be_done(built):
    assert json.loads((built.results / "Tiny" / "verification.json").read_text())["outcome"] == "passed"
    assert logs_of_releases(built) == {rule: {"Tiny.log"} for rule in AFTER_SHARDS}
    assert built.run() == set()
    # nor where times are compared, as they are for large files: hard links in the release share theirs with shards
    assert "Nothing to be done" in built.snakemake("-n", "--max-checksum-file-size", "0").stdout


def test_deleted_file_of_a_release_is_made_again(project):
    for name, rules in (
        ("release/SHA256SUMS", {"release", "attest", "verify"}),
        ("card/NOTICE", AFTER_SHARDS),
    ):
        (project.results / "Tiny" / name).unlink()
        assert {rule for rule, _ in rebuilds.would_run(project)} == rules


def test_quotation_renders_the_card_only(project):
    rebuilds.quotation(project)
    made = project.run()
    assert {step for step, _ in made} == AFTER_SHARDS
    card = (project.results / "Tiny/release/README.md").read_text(encoding="utf-8")
    assert "After\\." in card or "After." in card
    assert "Before" not in card


@pytest.mark.slow
def test_swapped_experts_remake_the_experts_and_the_routers(project):
    before = project.released_weights()

    rebuilds.swap(project)
    made = project.run()
    assert shards_made(made) == {"mix.expert1-1", "mix.expert2-1", "mix.routers"}
    after = project.released_weights()
    first, second = "model.layers.0.block_sparse_moe.experts.{}.w1.weight".format, 0
    assert after[first(0)].equal(before[first(1)])
    assert after[first(1)].equal(before[first(second)])
    assert not after[first(0)].equal(before[first(0)])
    gate = "model.layers.1.block_sparse_moe.gate.weight"
    assert after[gate].equal(before[gate].flip(0))

    rebuilds.swap(project)  # back: all that has a key is still there
    assert {rule for rule, _ in rebuilds.would_run(project)} == AFTER_SHARDS


def test_prompt_remakes_the_routers_only(project):
    rebuilds.prompts(project)
    assert shards_made(rebuilds.would_run(project)) == {"mix.routers"}


def test_fraction_remakes_that_model_and_what_is_made_of_it(project):
    rebuilds.threshold(project)
    assert shards_made(rebuilds.would_run(project)) == {"tuned-laser.1", "mix.expert1-1"}


def test_weight_of_a_source_remakes_what_depends_on_it(project):
    rebuilds.revision(project)
    assert shards_made(rebuilds.would_run(project)) == {"other.1", "mix.expert2-1"}


@pytest.mark.slow
def test_renamed_parent_leaves_what_is_made_of_it_and_no_trace_of_its_name(project, tmp_path):
    """The release is that of a build from scratch under the new name."""
    rebuilds.edit(project, lambda recipe: rebuilds.rename(recipe, "base", "root"))
    made = project.run()
    assert {step for step, _ in made} == {"fetch", *AFTER_SHARDS}
    assert shards_made(made) == {"root.1"}

    scratch = shutil.copytree(project.recipe.parent, tmp_path / "scratch")
    plan = tiny.build(scratch / project.recipe.name, tmp_path / "results")
    render_card(plan, plan.layout.card_folder)
    renamed, anew = (
        {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (project.results / "Tiny/release", tiny.release(plan))
    )
    assert renamed.keys() == anew.keys()
    assert [name for name, content in anew.items() if renamed[name] != content] == []


def test_renamed_model_is_made_of_its_parents_and_its_children_stay(project):
    rebuilds.edit(project, lambda recipe: rebuilds.rename(recipe, "base-laser", "first"))
    assert shards_made(rebuilds.would_run(project)) == {"first.1"}


def test_adapter_remakes_what_depends_on_it(project):
    folder = project.recipe.parent / "adapter"
    shutil.rmtree(folder)
    tiny.write_adapter(folder, project.recipe.parent / "base", seed=4)
    tiny.lock(project.recipe)
    assert shards_made(rebuilds.would_run(project)) == {"tuned.1", "tuned-laser.1", "mix.expert1-1"}


def test_same_bytes_elsewhere_are_the_same_model(project):
    shutil.copytree(project.recipe.parent / "other", project.recipe.parent / "moved")
    rebuilds.edit(project, lambda recipe: recipe["models"].update(other={"folder": "moved"}))
    assert {rule for rule, _ in rebuilds.would_run(project)} <= {"files", *AFTER_SHARDS}


def add_code(project, module):
    """Add a statement to a module of the folder's own copy of the package."""
    path = project.root / "src/herdbook" / module
    path.write_text(path.read_text(encoding="utf-8") + "\nCHANGED = True\n", encoding="utf-8")


@pytest.mark.slow
def test_code_of_a_step_remakes_its_results_and_code_that_makes_no_weights_none(project):
    project.own_code()
    for module in ("cli/plan.py", "steps/laser/reduce.py"):
        add_code(project, module)
    assert shards_made(rebuilds.would_run(project)) == {
        "base-laser.1",
        "tuned-laser.1",
        "mix.base-1",
        "mix.expert1-1",
        "mix.routers",
    }


def test_touching_files_changes_nothing(project):
    for path in (project.recipe.parent / "other").iterdir():
        path.touch()
    tiny.lock(project.recipe)
    assert rebuilds.would_run(project) == set()


@pytest.mark.slow
def test_another_recipe_shares_what_it_has_in_common(project):
    recipe = yaml.safe_load(project.recipe.read_text(encoding="utf-8"))
    recipe["release"]["name"] = "Second"
    recipe["models"]["mix"]["moe"]["experts"][1]["prompts"] = ["w7"]
    second = project.recipe.with_name("second.yaml")
    second.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    tiny.lock(second)
    made = project.run("--config", f"recipe={second.relative_to(project.root)}")
    assert shards_made(made) == {"mix.routers"}
    assert logs_of_releases(project) == {rule: {"Tiny.log", "Second.log"} for rule in AFTER_SHARDS}
    assert project.run() == set()


@pytest.mark.usefixtures("conda", "apptainer")
def test_another_environment_makes_nothing_again(project):
    asked = ["--dry-run", "--sdm", "apptainer", "--config", "container=docker://herd/book:1"]
    assert "Nothing to be done" in project.snakemake(*asked).stdout
    asked = ["--dry-run", "--sdm", "conda", "--config", "device=cuda"]
    assert "Nothing to be done" in project.snakemake(*asked).stdout
    # but for the profile, Snakemake would make all of it again
    watched = project.snakemake(*asked, "--rerun-triggers", "params", "software-env").stdout
    assert "Software environment definition has changed" in watched
