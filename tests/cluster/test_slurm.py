"""Releases built on a real SLURM: the same bytes as on one machine; lost jobs are tried again; failures name their log.

The builds run side by side, since most of their time is waiting for the queue.
"""

import json
import os
import re
import subprocess
import sys
from functools import cached_property

import pytest
import yaml

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook.signing.keys import PASSWORD_VARIABLE, generate
from support import forkserver, slurm, tiny, tuned
from support.project import Project

pytestmark = pytest.mark.slow

MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "folded": {"adapter": "adapter", "on": "other", "license": "mit"},
    "lasered": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "lasered",
            "experts": [
                {"model": "lasered", "prompts": ["w1 w2 w3"]},
                {"model": "folded", "prompts": ["w9 w8"]},
            ],
        }
    },
}
# This cluster keeps no accounts of jobs, and the tests are in a hurry.
OPTIONS = (
    "--profile", "profiles/slurm", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3",
)  # fmt: skip
SNAKEMAKE = """#!/bin/sh
exec {python} -m snakemake "$@"
"""
WRAPPER = """#!/bin/sh
{before}
exec {herdbook} "$@"
"""


class Herd(Project):
    """A project whose steps run on a cluster; a script runs before each of them."""

    def __init__(self, root, cluster, site, before):
        super().__init__(root)
        self.cluster = cluster
        self.write(root / "config")
        tiny.lock(self.recipe)
        self.site = root / "config/cluster.yaml"
        self.site.write_text(yaml.safe_dump(site), encoding="utf-8")
        (root / "bin").mkdir()
        herdbook = root / "bin/herdbook"
        herdbook.write_text(
            WRAPPER.format(before=before, herdbook=forkserver.PROGRAMS / "herdbook"), encoding="utf-8"
        )
        herdbook.chmod(0o755)

    def write(self, folder):
        """Write models and a recipe."""
        for seed, name in enumerate(("base", "other"), start=1):
            tiny.write_model(folder / name, seed=seed)
        tiny.write_adapter(folder / "adapter", folder / "other", seed=3)
        tiny.write_task(folder / "task.yaml")
        tiny.write_recipe(self.recipe, MODELS, evaluate={"tasks": ["task.yaml"], "models": ["mix"]})

    @cached_property
    def plan(self):
        """The plan."""
        return plans.load(self.recipe)

    def environment(self, *, forked=False):
        own = super().environment(forked=forked)
        theirs = self.cluster.environment
        path = f"{self.root}/bin:{theirs['PATH'].split(':')[0]}:{own['PATH']}"
        return {**own, **theirs, "PATH": path}

    def shard(self, model):
        """Return the path of a model's first shard, below the folder."""
        return self.plan.layout.shard(self.plan.nodes[model].parts[0])

    def start(self, *targets, python=sys.executable):
        """Start a build on the cluster, with an interpreter that its jobs have, too."""
        self._start(python, "-m", "snakemake", *OPTIONS, "--", *map(str, targets))

    def _start(self, *command):
        self.output = self.root / "output.txt"
        with self.output.open("w") as out:
            self.process = subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def finish(self):
        """Wait for the build; return its exit status and what it said."""
        status = self.process.wait(timeout=900)
        return status, self.output.read_text(encoding="utf-8")

    def jobs(self, comment):
        """Return the jobs of a rule, or of a part, in the order of their submission."""
        return [job for job in self.cluster.jobs(comment) if job["WorkDir"] == str(self.root)]

    def stop(self):
        """End the build if it runs still."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Searched(Herd):
    """A project with a search, of which one trial is missing."""

    def write(self, folder):
        tuned.write(folder, tuned.ONE).rename(self.recipe)

    def start(self):
        """Start the search, with a Snakemake that is forked as its jobs are."""
        self.lost = tuned.all_but_one(self.recipe, self.results)
        program = self.root / "bin/snakemake"
        program.write_text(SNAKEMAKE.format(python=forkserver.PYTHON), encoding="utf-8")
        program.chmod(0o755)
        self._start(self.root / "bin/herdbook", "tune", "--", *OPTIONS)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key.pem"
    generate(path)
    return path


@pytest.fixture(scope="module")
def herds(cluster, key, tmp_path_factory):
    """Start all builds; return them by name."""
    root = tmp_path_factory.mktemp("herds")
    (root / "cache").mkdir()
    main, frail = ({"account": "herd", "partition": name} for name in ("main", "frail"))
    tell = f'env >"{root}/env-$1-$$"'
    greedy = f"{sys.executable} -c 'import time; held = b\" \" * 600_000_000; time.sleep(4)'"
    found = {
        "whole": Herd(root / "whole", cluster, {**main, "cache": str(root / "cache")}, tell),
        # a step that needs more memory than was planned, and one that hangs when it is run for the first time; there is no
        # GPU to compute on, only one in name
        "short": Herd(
            root / "short",
            cluster,
            {**main, "gpu_partition": "main", "gpu": "h100", "device": "cuda"},
            f'[ "$1" = laser ] && echo $CUDA_VISIBLE_DEVICES $HERDBOOK_DEVICE >>"{root}/gpu" && '
            f'{{ mkdir "{root}/hung" 2>/dev/null && sleep 600; set -- "$@" --device cpu; }}\n'
            f'[ "$1" = fetch ] && {greedy}',
        ),
        # a step during which a node dies, and one that cannot succeed
        "lost": Herd(
            root / "lost",
            cluster,
            frail,
            f'case "$2" in {{key}}*) mkdir "{root}/doomed" 2>/dev/null && sleep 600;; esac',
        ),
    }
    found["searched"] = Searched(root / "searched", cluster, main, "")
    whole, short, lost, searched = found.values()
    settings = {"recipe": "config/tiny.yaml", "signing_key": str(key)}
    (whole.root / "config/config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    wrapper = lost.root / "bin/herdbook"
    wrapper.write_text(
        wrapper.read_text(encoding="utf-8").replace("{key}", lost.plan.nodes["base"].parts[0].key),
        encoding="utf-8",
    )
    with (lost.root / "config/other/model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    whole.start(python=forkserver.PYTHON)  # the cluster watches no process of its jobs
    short.start(short.shard("lasered"))
    lost.start(lost.shard("base"), lost.shard("other"))
    searched.start()

    slurm.wait_for((root / "doomed").exists, "job that hangs")
    (job,) = lost.jobs(f"rule_fetch_wildcards_{lost.shard('base').stem}")
    cluster.kill_node(job["BatchHost"])
    slurm.wait_for((root / "hung").exists, "job that hangs")
    (job,) = short.jobs("rule_laser")
    short.planned = minutes(job)
    cluster.command("scontrol", "update", f"JobId={job['JobId']}", "TimeLimit=1")
    yield found
    for herd in found.values():
        herd.stop()


def test_a_node_that_dies_takes_no_job_with_it(herds):
    lost = herds["lost"]
    status, output = lost.finish()
    first, second = lost.jobs(f"rule_fetch_wildcards_{lost.shard('base').stem}")
    assert (first["JobState"], second["JobState"]) == ("NODE_FAIL", "COMPLETED"), output
    assert first["BatchHost"] != second["BatchHost"]
    assert (lost.root / lost.shard("base")).exists()
    assert status == 1  # because of the other job


def test_a_failure_that_stays_is_tried_again_and_then_names_its_log(herds):
    lost = herds["lost"]
    _, output = lost.finish()
    part = lost.shard("other").stem
    tries = lost.jobs(f"rule_fetch_wildcards_{part}")
    # the first may have been on the node that died
    assert len(tries) == 3, output
    assert tries[-1]["JobState"] == "FAILED"
    log = lost.root / f"logs/fetch/{part}.log"
    said = log.read_text(encoding="utf-8")
    for place in (f"logs/fetch/{part}.log", f"logs/slurm/rule_fetch/{part}/{tries[-1]['JobId']}.log"):
        assert re.search(rf"log: \S*{re.escape(place)}$", output, re.MULTILINE), output
    assert "model.safetensors" in said
    assert said.strip().splitlines()[-1] in output


def test_too_little_memory_and_too_little_time_are_made_good(herds):
    short = herds["short"]
    status, output = short.finish()
    assert status == 0, output
    assert (short.root / short.shard("lasered")).exists()

    killed, done = short.jobs(f"rule_fetch_wildcards_{short.shard('base').stem}")
    assert (killed["JobState"], done["JobState"]) == ("FAILED", "COMPLETED")
    assert megabytes(done) == 2 * megabytes(killed)
    log = short.root / f"logs/slurm/rule_fetch/{short.shard('base').stem}/{killed['JobId']}.log"
    assert "exceeded memory limit" in log.read_text(encoding="utf-8")

    late, done = short.jobs(f"rule_laser_wildcards_{short.shard('lasered').stem}")
    assert (late["JobState"], done["JobState"]) == ("TIMEOUT", "COMPLETED")
    assert minutes(done) == 2 * short.planned
    assert megabytes(done) == 2 * megabytes(late)


def test_what_computes_on_a_gpu_gets_one_of_the_cluster_s_type_and_nothing_else_does(herds):
    short = herds["short"]
    assert short.finish()[0] == 0
    jobs = short.jobs(f"rule_laser_wildcards_{short.shard('lasered').stem}")
    assert {job["TresPerJob"] for job in jobs} == {"gres:gpu:h100:1"}
    assert not [job for job in short.jobs("rule_fetch") if "TresPerJob" in job]
    told = (short.root.parent / "gpu").read_text(encoding="utf-8").splitlines()
    assert told == ["0 cuda"] * 2


def test_the_release_has_the_bytes_of_one_machine(herds, tmp_path):
    whole = herds["whole"]
    local = Project(tmp_path / "local")
    for name in (
        "config.yaml",
        "tiny.yaml",
        "tiny.lock.json",
        "base",
        "other",
        "adapter",
        "task.yaml",
        "text.jsonl",
    ):
        (local.root / "config" / name).unlink(missing_ok=True)
        (local.root / "config" / name).symlink_to(whole.root / "config" / name)
    local.run()
    status, output = whole.finish()
    assert status == 0, output
    files = {
        path.relative_to(local.results): path.read_bytes()
        for path in sorted((local.results / "Tiny/release").rglob("*"))
        if path.is_file()
    }
    assert {"model.sig", "claims.jsonl", "README.md"} <= {path.name for path in files}
    found = [path for path in (whole.results / "Tiny/release").rglob("*") if path.is_file()]
    assert {path.relative_to(whole.results): path.read_bytes() for path in found} == files

    # and neither thinks that the other's way of building is a reason to build again
    again = whole.snakemake("--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_jobs_are_told_what_they_must_know_and_no_key(herds, key):
    whole = herds["whole"]
    assert whole.finish()[0] == 0
    told = {}
    for path in whole.root.parent.glob("env-*"):
        step = path.name.split("-")[1]
        lines = path.read_text(encoding="utf-8").splitlines()
        told[step] = dict(line.split("=", 1) for line in lines if "=" in line)
    local = {"assemble", "files", "attest"}
    assert {step for step, env in told.items() if "SLURM_JOB_ID" not in env} == local
    assert told.keys() - local == {
        "fetch", "adapter", "laser", "moe", "evaluate", "routing", "card", "release", "verify",
    }  # fmt: skip
    for step in told.keys() - local:
        assert told[step]["HERDBOOK_RECIPE"] == "config/tiny.yaml"
        assert told[step]["HERDBOOK_DEVICE"] == "cpu"
        assert told[step]["HF_HUB_CACHE"] == f"{whole.root.parent}/cache/hub-{os.getuid()}"
        assert not [name for name, value in told[step].items() if value == str(key)]
    assert told["attest"]["HERDBOOK_SIGNING_KEY"] == str(key)


def test_a_trial_of_a_search_is_a_job_as_any_other(herds):
    searched = herds["searched"]
    status, output = searched.finish()
    assert status == 0, output
    assert all(path.exists() for path in searched.lost)
    (job,) = searched.jobs("rule_evaluate_one")
    assert job["JobState"] == "COMPLETED"
    assert searched.lost[0].stem in job["Comment"]
    found = locks.load(locks.path_for(searched.recipe)).tuned["sum"].result
    measured = json.loads(searched.lost[0].read_text(encoding="utf-8"))["tasks"]["validation"]["metrics"]
    assert found.trials[2].score == measured["bits_per_byte"]["value"]


def test_small_jobs_are_submitted_together(herds):
    whole = herds["whole"]
    assert whole.finish()[0] == 0
    copies = [part for part in whole.plan.nodes["mix"].parts if part.label != "routers"]
    assert len(copies) == 3
    assert len(whole.jobs("rule_moe_copies")) == 1


def test_a_signing_password_does_not_travel(tmp_path, monkeypatch):
    project = Project(tmp_path / "project")
    tiny.write_model(project.root / "config/base")
    tiny.write_recipe(project.recipe, {"base": {"folder": "base"}})
    tiny.lock(project.recipe)
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    generate(tmp_path / "locked.pem")
    done = project.snakemake(*OPTIONS, "--config", f"signing_key={tmp_path}/locked.pem", check=False)
    assert done.returncode != 0
    assert f"${PASSWORD_VARIABLE} is set" in done.stdout + done.stderr
    assert not project.results.exists()


def megabytes(job):
    """Return the memory that a job asked for."""
    number, unit = job["MinMemoryNode"][:-1], job["MinMemoryNode"][-1]
    return round(float(number) * {"M": 1, "G": 1024}[unit])


def minutes(job):
    """Return a job's time limit."""
    hours, minutes, _ = job["TimeLimit"].split(":")
    return 60 * int(hours) + int(minutes)
