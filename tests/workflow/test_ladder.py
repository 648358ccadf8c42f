"""Quantized files of one model, made by the workflow: what waits for what, and what is not made for another file."""

import json
import re

import pytest

from herdbook import plan as plans
from herdbook.weights.gguf_file import header
from herdbook.weights.gguf_header import encode
from support import tiny
from support.project import Project, steps_of

METHODS = ["Q4_K_M", "Q4_K_S", "Q6_K", "Q8_0"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A model with a released ladder of quantized files, of which no step has run."""
    project = Project(tmp_path_factory.mktemp("ladder") / "herd")
    tiny.write_model(project.recipe.parent / "base", seed=1, hidden=256, intermediate=256)
    tiny.write_recipe(project.recipe, {"base": {"folder": "base"}}, quantize={"methods": METHODS})
    tiny.lock(project.recipe)
    plan = plans.load(project.recipe, project.results)
    head = plan.layout.header(plan.conversion)
    head.parent.mkdir(parents=True)
    head.write_bytes(header({"general.architecture": encode("llama")}, []))  # takes the converter seconds
    return project


@pytest.fixture
def project(built, tmp_path):
    return built.copy(tmp_path / "copy")


def waits(project, *arguments):
    """Return for each quantized file that a run would make the other ones that it waits for."""
    done = project.snakemake("--dry-run", "-p", *arguments)
    found = {}
    for inputs, output in re.findall(
        r"rule quantize_one:\n +input: (.*)\n +output: (\S+)\.gguf", done.stdout
    ):
        files = re.findall(r"Tiny\.(\w+)-\w+\.gguf", inputs)
        found[re.search(r"Tiny\.(\w+)-", output)[1]] = sorted(files)
    return found


def path(project, method):
    plan = plans.load(project.recipe, project.results)
    (item,) = [one for one in plan.quantized if one.method == method]
    return plan.layout.quantized(item)


@pytest.mark.slow
def test_mixtures_wait_for_the_files_of_nearly_one_type_in_a_build_of_all(project):
    everything = {"Q4_K_M": ["Q4_K_S", "Q6_K"], "Q4_K_S": [], "Q6_K": [], "Q8_0": []}
    for target in ([], ["quantize"]):
        assert waits(project, *target) == everything, target


def test_a_file_that_is_asked_for_alone_is_made_alone(project):
    name = str(path(project, "Q4_K_M").relative_to(project.root))
    assert waits(project, name) == {"Q4_K_M": []}
    both = [name, str(path(project, "Q4_K_S").relative_to(project.root))]
    assert waits(project, *both) == {"Q4_K_M": ["Q4_K_S"], "Q4_K_S": []}
    assert waits(project, "--until", name) == {"Q4_K_M": []}


def test_where_snakemake_compares_inputs_they_do_not_depend_on_what_is_asked_for(project):
    found = waits(project, "--rerun-triggers", "input", "params")
    assert found == {method: [] for method in METHODS}


@pytest.mark.slow
def test_a_finished_build_stays_finished_whichever_files_are_newer(project):
    project.run("quantize")
    made = path(project, "Q4_K_M")
    before = made.read_bytes()
    logs = {log.name: log.read_text() for log in (project.root / "logs/quantize").iterdir()}
    (log,) = [text for name, text in logs.items() if name.startswith("Tiny.Q4_K_M")]
    assert re.search(r"\d+ of \d+ tensors are copied from Tiny\.Q4_K_S-\w+\.gguf, Tiny\.Q6_K-\w+\.gguf", log)
    # files that others were copied from are newer, or are gone
    path(project, "Q4_K_S").touch()
    for target in ("quantize", "card"):
        assert "quantize_one" not in {
            step for step, _ in steps_of(project.snakemake("--dry-run", target).stdout)
        }
    path(project, "Q6_K").unlink()
    assert waits(project, "quantize") == {"Q6_K": []}
    made.unlink()
    project.run(str(made.relative_to(project.root)))
    assert made.read_bytes() == before
    assert not path(project, "Q6_K").exists()
    record = json.loads(made.with_suffix(".json").read_text())
    assert "Q6_K" in record["types"]
