"""The workflow as a module of another one, and its targets."""

import json
import re
import shutil
from collections import Counter

import pytest

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.plan.jobs import all_jobs
from herdbook.tools import exclusive
from herdbook.tuning import build
from support import tiny, tuned
from support.project import REPOSITORY, WORKFLOW, Project, steps_of

MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "mix": {"moe": {"base": "base", "gate": "random", "experts": [{"model": "base"}, {"model": "other"}]}},
}
MODULE = """
module {name}:
    snakefile: {snakefile!r}
    config: {config}
    prefix: {name!r}

use rule * from {name} as {name}_*
"""
REST = """
rule all:
    default_target: True
    input: rules.one_all.input, rules.two_all.input
"""
OWN_START = """
onstart:
    one.onstart()
    two.onstart()
"""
# As snakedeploy 0.17.1 writes it, but for the place of the workflow: a repository on GitHub or GitLab, at a tag.
DEPLOYED = """
from snakemake.utils import min_version

min_version("6.10.0")

configfile: "config/config.yaml"

module herdbook:
    snakefile:
        {snakefile!r}
    config:
        config

use rule * from herdbook
"""


def write(project, name, seed):
    """Write a recipe with models of its own, and its lock; return its path from the folder."""
    folder = project.recipe.parent / name
    tiny.write_model(folder / "base", seed=seed)
    tiny.write_model(folder / "other", seed=seed + 1)
    recipe = tiny.write_recipe(folder / "tiny.yaml", MODELS)
    tiny.lock(recipe)
    return recipe.relative_to(project.root)


@pytest.fixture
def project(tmp_path):
    """A workflow with the workflow twice, each with another recipe."""
    project = Project(tmp_path)
    (project.root / "Snakefile").unlink()
    (project.root / "config/config.yaml").unlink()
    modules(project, {"recipe": str(write(project, "one", 1))}, {"recipe": str(write(project, "two", 5))})
    return project


def modules(project, *configs, handed="", before="", after=""):
    """Write the workflow, with the configuration of each module, which ``handed`` precedes, and what precedes and follows the modules."""
    snakefile = str(REPOSITORY / "Snakefile")
    texts = [
        MODULE.format(name=name, snakefile=snakefile, config=f"{{{handed}{str(config)[1:]}")
        for name, config in zip(("one", "two"), configs, strict=True)
    ]
    (project.root / "Snakefile").write_text(before + "".join(texts) + REST + after)


@pytest.mark.slow
def test_twice_in_one_workflow_each_makes_its_own(project):
    project.snakemake("--workflow-profile", "none", "--until", "one_fetch", "two_fetch")
    ran = steps_of(project.logged())
    for name in ("one", "two"):
        plan = plans.load(project.root / f"config/{name}/tiny.yaml", project.root / f"{name}/results")
        shards = [plan.layout.shard(part) for part in plan.parts.values() if part.rule == "fetch"]
        assert all(path.is_file() for path in shards)
        made = {output for rule, output in ran if rule == f"{name}_fetch"}
        assert made == {str(path.relative_to(project.root)) for path in shards}
        assert list((project.root / name / "logs/fetch").iterdir())
        assert (project.root / name / "results/.running").exists()  # it was held
    said = project.herdbook("gc").stderr
    assert "name one of them: --results one/results, --results two/results" in said
    assert not project.results.exists()


@pytest.mark.parametrize(
    "own", [{}, {"before": OWN_START}, {"after": OWN_START}], ids=["none", "before", "after"]
)
def test_a_build_holds_the_results_of_all_modules(project, monkeypatch, own):
    """Of the first, and is refused those of the second, which another process has; the workflow may have an ``onstart``, or none."""
    modules(project, *({"recipe": f"config/{name}/tiny.yaml"} for name in ("one", "two")), **own)
    monkeypatch.setattr(exclusive, "_held", {})  # let go of at the end
    exclusive.hold(project.root / "two/results/.running", "removing results")
    done = project.snakemake("--workflow-profile", "none", check=False)
    assert "is removing results in this folder (two/results/.running is locked)" in done.stdout + done.stderr
    assert done.returncode != 0
    holder = json.loads((project.root / "one/results/.running").read_text(encoding="utf-8"))
    assert holder["work"] == "building config/one/tiny.yaml"
    assert not (project.root / "one/results/shards").exists()


def test_what_snakedeploy_deploys_plans_the_whole_miniature(tmp_path):
    """Of the repository it copies ``config`` and ``profiles``; all that the recipe names lies there."""
    project = Project(tmp_path)
    for name in WORKFLOW:
        (tmp_path / name).unlink()
    for name in ("config", "profiles"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, dirs_exist_ok=True)
    for path in (tmp_path / "config").rglob("*.yaml"):
        for outside in re.findall(r"\.\./[\w./-]*\w", path.read_text(encoding="utf-8")):
            place = (path.parent / outside).resolve()
            assert place.is_relative_to(tmp_path / "config"), f"{path}: {outside}"
            assert place.exists(), f"{path}: {outside}"
    (tmp_path / "workflow").mkdir()
    snakefile = DEPLOYED.format(snakefile=str(REPOSITORY / "workflow/Snakefile"))
    (tmp_path / "workflow/Snakefile").write_text(snakefile, encoding="utf-8")
    # The plan of the repository's own recipe, for a folder without results.
    plan = plans.load(REPOSITORY / "config/miniature.yaml", tmp_path / "results")
    jobs = [job for job in all_jobs(plan, None) if job.rule != "publish"]
    planned = steps_of(project.snakemake("--dry-run").stdout)
    assert {output for _, output in planned} == {str(job.outputs[0].relative_to(tmp_path)) for job in jobs}
    assert Counter(rule.partition("_")[0] for rule, _ in planned) == Counter(job.rule for job in jobs)


def test_what_is_wrong_with_the_config_of_a_module_is_named(project):
    recipes = [{"recipe": f"config/{name}/tiny.yaml"} for name in ("one", "two")]
    done = project.snakemake("--dry-run", "--config", "device=cuda", check=False)
    said = done.stdout + done.stderr
    assert (
        "config of the module with prefix 'one/': lacks device, which the configuration of the workflow"
        in said
    )
    modules(project, recipes[0], recipes[1] | {"devise": "cuda"})
    done = project.snakemake("--dry-run", check=False)
    said = done.stdout + done.stderr
    assert "config of the module with prefix 'two/': devise: unknown setting; did you mean 'device'?" in said
    modules(project, recipes[0], {})
    done = project.snakemake("--dry-run", check=False)
    assert "config of the module with prefix 'two/': names no recipe" in done.stdout + done.stderr
    modules(project, recipes[0], recipes[1] | {"device": "cuda"})
    done = project.snakemake("--dry-run", check=False)
    assert (
        "device: is 'cuda' in this module of the workflow and 'cpu' in another" in done.stdout + done.stderr
    )
    assert done.returncode != 0


def test_an_option_about_a_target_of_a_module_is_refused(project):
    """By the name that the workflow gives it; as the build starts, the module's own is known to nobody."""
    words = ("--workflow-profile", "none", "--omit-from", "one_evaluate", "--", "one_models")
    done = project.snakemake(*words, check=False)
    told = "omit-from: one_evaluate is a target; the rule of its jobs is one_evaluate_one"
    assert told in done.stdout + done.stderr
    assert done.returncode != 0


def test_a_cluster_s_file_reaches_the_jobs_that_it_is_for(project):
    """Those on GPUs, of modules, too; a partition may have a name that Snakemake would take for its own."""
    cluster = "account: lab\npartition: input\ngpu_partition: gpu\ngpu: a100\ndevice: cuda\n"
    (project.root / "config/cluster.yaml").write_text(cluster, encoding="utf-8")
    recipes = [{"recipe": f"config/{name}/tiny.yaml"} for name in ("one", "two")]
    modules(project, *recipes, handed="**config, ")
    done = project.snakemake("--profile", str(REPOSITORY / "profiles/slurm"), "--dry-run")
    jobs = re.findall(r"^ *rule (\S+):$.*?^ +resources: (.*?)$", done.stdout, re.MULTILINE | re.DOTALL)
    asked = {
        rule: {word for word in given.split(", ") if re.match("gpu=|gpu_model|slurm", word)}
        for rule, given in jobs
    }
    everywhere = {"slurm_account=lab", "slurm_partition=input"}
    on_gpu = {"slurm_account=lab", "slurm_partition=gpu", "gpu=1", "gpu_model=a100"}
    for name in ("one", "two"):
        assert asked[f"{name}_routing"] == on_gpu
        assert asked[f"{name}_fetch"] == asked[f"{name}_moe"] == asked[f"{name}_verify"] == everywhere
    assert "Group job moe_copies" in done.stdout  # by the group's name, which has no prefix


@pytest.mark.slow
def test_a_release_of_a_module_is_that_of_the_workflow_itself_also_in_a_container(
    project, apptainer, tmp_path
):
    (project.root / "herdbook.sif").touch()
    common = {"container": "herdbook.sif"}
    modules(project, *({"recipe": f"config/{name}/tiny.yaml", **common} for name in ("one", "two")))
    options = ("--workflow-profile", "none", "--software-deployment-method", "apptainer")
    project.snakemake(*options)
    asked = apptainer.read_text(encoding="utf-8").splitlines()
    steps = re.findall(r"^herdbook.sif \S+ -c .* herdbook (\w+)", "\n".join(asked), re.MULTILINE)
    ran = [rule for rule, _ in steps_of(project.logged())]
    assert len(steps) == len(asked) == len(ran)
    assert set(steps) == {
        "fetch",
        "files",
        "assemble",
        "moe",
        "routing",
        "card",
        "release",
        "attest",
        "verify",
    }
    alone = Project(tmp_path / "alone")
    write(alone, "two", 5)
    alone.snakemake("--config", "recipe=config/two/tiny.yaml")
    for name in ("SHA256SUMS", "claims.jsonl", "README.md"):
        released = [root / "results/Tiny/release" / name for root in (project.root / "two", alone.root)]
        assert released[0].read_bytes() == released[1].read_bytes()
    assert "Nothing to be done" in project.snakemake(*options, "--dry-run").stdout


def searched(project, name):
    """Write a recipe with a search that nothing was tried of, and its lock; return its path."""
    recipe = tuned.write(project.root / f"config/{name}", tuned.ONE)
    tiny.lock(recipe)
    return recipe


def test_searches_of_two_modules_do_not_wait_for_each_other(project, monkeypatch):
    """Trials of one are planned, though nothing was tried for the other."""
    recipe, _ = searched(project, "one"), searched(project, "two")
    modules(project, {"recipe": "config/one/recipe.yaml"}, {"recipe": "config/two/recipe.yaml"})
    lock = locks.load(locks.path_for(recipe)).model_copy(update={"tuned": {}})
    trials = build.path_of_trials(recipe)
    build.write_recipe(plans.make(recipes.without_searches(recipes.load(recipe)), lock, trials))
    monkeypatch.setenv("HERDBOOK_TRIALS", str(trials.relative_to(project.root)))
    assert "one_merge" in project.snakemake("--workflow-profile", "none", "--dry-run").stdout


@pytest.mark.slow
def test_a_search_of_a_module_is_made_below_its_prefix(project):
    recipe = searched(project, "one")
    searched(project, "two")  # which is not tried, and in nobody's way
    results = project.root / "one/results"
    lost = tuned.all_but_one(recipe, results)
    modules(project, {"recipe": "config/one/recipe.yaml"}, {"recipe": "config/two/recipe.yaml"})
    done = project.snakemake("--workflow-profile", "none", "--dry-run", check=False)
    assert (
        "models.sum.search: nothing was tried yet. Run `herdbook tune config/one/recipe.yaml`"
        in done.stdout + done.stderr
    )

    words = ("tune", "config/one/recipe.yaml", "--results", "one/results", "--", "--cores", "2")
    done = project.herdbook(*words, "--workflow-profile", "none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(path.exists() for path in lost)
    ran = {rule for rule, _ in steps_of(project.logged())}
    assert ran - {"one_files_a"} == {"one_fetch", "one_merge", "one_assemble_sum-trial-2", "one_evaluate_one"}
    found = locks.load(locks.path_for(recipe)).tuned["sum"].result
    measured = json.loads(lost[0].read_text(encoding="utf-8"))["tasks"]["validation"]["metrics"]
    assert found.trials[2].score == measured["bits_per_byte"]["value"]
    assert not (project.root / "two/results/shards").exists()
    done = project.snakemake("--workflow-profile", "none", "--dry-run", check=False)
    assert re.findall(r"Run `herdbook tune (\S+)`", done.stdout + done.stderr) == ["config/two/recipe.yaml"]


def test_targets_and_another_directory(tmp_path):
    """The folder of the run has the configuration, and gets the results."""
    project = Project(tmp_path / "here")
    tiny.write_task(project.recipe.parent / "task.yaml")
    tiny.write_model(project.recipe.parent / "base", seed=1)
    sections = {
        "evaluate": {"tasks": ["task.yaml"], "models": ["base"]},
        "quantize": {"methods": ["Q8_0"]},
    }
    tiny.write_recipe(project.recipe, {"base": {"folder": "base"}}, **sections)
    tiny.lock(project.recipe)
    elsewhere = Project(tmp_path / "there")
    done = elsewhere.snakemake(
        *("--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(project.root), "--dry-run"),
        *("--quiet", "reason", "--", "models", "evaluate", "quantize"),
    )
    counts = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    assert {
        rule: counts.get(rule)
        for rule in ("assemble_base", "evaluate_one", "quantize_one", "card", "release")
    } == {
        "assemble_base": "1",
        "evaluate_one": "2",
        "quantize_one": "1",
        "card": None,
        "release": None,
    }
