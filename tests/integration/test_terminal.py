"""What programs write to a terminal, a pipe and a log: real processes, the terminal with a size and a kind."""

import re
import shutil

import pytest

from herdbook import plan as plans
from support import tiny
from support.project import Project
from support.terminal import watch

COLOR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d|10\d)(?:;\d+)*m")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
BAR = "%|"
# One job that waits until it was seen, and then one that fails.
WORKFLOW = """
rule second:
    input: "first"
    output: "second"
    shell: "false"

rule first:
    output: "first"
    shell: "until [ -e seen ]; do sleep 0.1; done; touch {output}"
"""
SHOWN = (
    "--cores",
    "1",
    "--logger",
    "herdbook",
    "--workflow-profile",
    "none",
    "--snakefile",
    "Workflow",
    "second",
)


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    (tmp_path / "Workflow").write_text(WORKFLOW, encoding="utf-8")
    return project


@pytest.fixture
def fetch(project):
    """The command that fetches a model's only shard."""
    tiny.write_model(project.recipe.parent / "base", seed=1)
    tiny.write_recipe(project.recipe, {"base": {"folder": "base"}})
    tiny.lock(project.recipe)
    [part] = plans.load(project.recipe, project.results).released.parts
    return ("fetch", part.key)


def on_a_terminal(project, *command, heard=None, **variables):
    """Return the exit status of a program that runs on a terminal, and all that it wrote there."""
    environment = {name: value for name, value in project.environment().items() if name != "NO_COLOR"}
    program = shutil.which(command[0], path=environment["PATH"])
    return watch([program, *command[1:]], project.root, environment | variables, heard)


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"NO_COLOR": ""}])
def test_a_build_is_drawn_on_a_terminal_in_color_unless_no_color_is_set(project, variables):
    def see(_, seen):
        if b" 1 running" in seen:
            (project.root / "seen").touch()

    status, seen = on_a_terminal(project, "snakemake", *SHOWN, heard=see, **variables)
    assert status == 1
    assert "\x1b[2K" in seen  # a drawing was taken away
    assert "second failed" in seen
    assert bool(COLOR.search(seen)) is not bool(variables.get("NO_COLOR"))


def test_a_build_in_a_pipe_is_told_in_plain_lines(project):
    (project.root / "seen").touch()
    done = project.snakemake(*SHOWN, check=False)
    assert done.returncode == 1
    assert re.search(r"^first first +[\d.]+ s, 1 of 2$", done.stderr, re.MULTILINE)
    assert "second failed" in done.stderr
    assert not CONTROL.search((done.stdout + done.stderr).replace("\n", ""))


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_a_step_shows_a_bar_on_a_terminal_and_none_in_a_pipe_or_a_log(project, fetch, variables, monkeypatch):
    status, seen = on_a_terminal(project, "herdbook", *fetch, **variables)
    assert status == 0, seen
    assert BAR in seen
    assert not COLOR.search(seen)
    shutil.rmtree(project.results)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = project.herdbook(*fetch)
    assert done.returncode == 0, done.stderr
    assert not CONTROL.search((done.stdout + done.stderr).replace("\n", ""))
    assert BAR not in done.stderr
