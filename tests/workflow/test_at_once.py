"""Two builds in one folder at once, and one that was killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from herdbook.weights.checkpoint import read_header
from support import rebuilds
from support.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path):
    return rebuilds.herd(tmp_path / "herd")


def started(project, made="*.json"):
    """Start a build, and return its process as soon as it has made shards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2"],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not list((project.results / "shards").glob(made)):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    return process


def test_a_second_build_is_refused_by_name_and_the_first_ends_well(project):
    first = started(project)
    second = project.snakemake(check=False)
    assert second.returncode != 0
    said = second.stdout + second.stderr
    assert f"process {first.pid} on " in said
    assert "config/tiny.yaml" in said
    assert "--directory" in said
    # looking on is not hindered
    assert project.snakemake("-n").returncode == 0
    assert project.herdbook("plan").returncode == 0
    out, _ = first.communicate()
    assert first.returncode == 0, out
    assert project.run() == set()


WRITER = """
import pathlib, sys
from herdbook.files import atomic_writer

with atomic_writer(pathlib.Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
"""


def writing(project, name):
    """Start a process that has written half of a result, as a job does that outlives its build; it ends with its input."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(project.results / "shards" / name)],
        env=project.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "half\n"
    return process


def test_a_build_that_was_killed_goes_on_without_hand_work(project):
    killed = started(project, "mix.*.safetensors")  # in the middle
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    for path in (project.results / "shards").glob("*.safetensors"):
        read_header(path)  # it is whole
    dead, alive = writing(project, "dead.safetensors"), writing(project, "alive.safetensors")
    dead.kill()
    dead.communicate()
    assert len(list(project.results.rglob("*.part"))) >= 2
    before = {path.name for path in (project.results / "shards").glob("*.json")}
    made = project.run()
    assert made
    assert (project.results / "Tiny/verification.json").exists()
    assert not {path for _, path in made} & {f"results/shards/{name}" for name in before}
    [part] = project.results.rglob("*.part")
    assert part.name.startswith(".alive.safetensors.")
    alive.communicate()
    assert alive.returncode == 0
    assert (project.results / "shards/alive.safetensors").read_bytes() == b"half"
    assert Project(project.root).run() == set()
    assert not list(project.results.rglob("*.part"))
