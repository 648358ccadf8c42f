"""Results made on two machines that share no disk: the same bytes as on one; a machine that dies loses nothing."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from herdbook import plan as plans
from herdbook.cache import configured, products
from herdbook.files import sha256_file
from support import machines, s3_server, tiny
from support.project import REPOSITORY, WORKFLOW, Project

pytestmark = pytest.mark.slow

CACHE, RUNS = "s3://herd/cache", "s3://herd/runs"
MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "lasered": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "lasered",
            "experts": [
                {"model": "lasered", "prompts": ["w1 w2 w3"]},
                {"model": "other", "prompts": ["w9 w8"]},
            ],
        }
    },
}
SENT = ("Snakefile", "rules", "profiles", "config/config.yaml", "config/tiny.yaml", "config/tiny.lock.json")
OPTIONS = (
    "--executor", "cluster-generic", "--jobs", "2", "--retries", "1", "--seconds-between-status-checks", "1",
    "--shared-fs-usage", "none", "--job-deploy-sources",
    "--default-storage-provider", "s3", "--default-storage-prefix", RUNS,
)  # fmt: skip
# On the machine with this, the second job hangs.
HANGS = 'echo >>"$HOME/jobs"; [ "$(wc -l <"$HOME/jobs")" = 2 ] && touch "$HOME/hung" && sleep 600'


def herd(folder):
    """Return a project with a tiny herd and files of the workflow of its own; git tracks what jobs elsewhere need."""
    folder.mkdir()
    for name in WORKFLOW:
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    project = Project(folder)
    for seed, name in enumerate(("base", "other"), start=1):
        tiny.write_model(folder / "config" / name, seed=seed)
    tiny.write_recipe(project.recipe, MODELS)
    tiny.lock(project.recipe)
    for words in (["init", "--quiet"], ["add", *SENT]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return project


def test_two_machines_that_share_nothing_but_a_bucket(tmp_path, monkeypatch):
    with machines.Network(tmp_path) as network, s3_server.serve(monkeypatch, host=network.address) as url:
        project = herd(tmp_path / "head")
        monkeypatch.setenv("HF_TOKEN", "hf_of_this_host")
        theirs = {
            name: os.environ[name] for name in s3_server.environment(url) if name.startswith(("AWS_", "NO_"))
        }
        frail = network.add("one", theirs, HANGS)
        sturdy = network.add("two", theirs)
        for machine in (frail, sturdy):
            assert not machine.path("head").exists()
        output = tmp_path / "output.txt"
        command = [
            *(sys.executable, "-m", "snakemake", *OPTIONS),
            *("--cluster-generic-submit-cmd", network.scheduler("submit")),
            *("--cluster-generic-status-cmd", network.scheduler("status")),
            *("--config", f"cache={CACHE}"),
        ]
        with (
            output.open("w") as said,
            subprocess.Popen(
                command, cwd=project.root, env=project.environment(), stdout=said, stderr=subprocess.STDOUT
            ) as build,
        ):
            try:
                machines.wait_for(lambda: frail.path("home/hung").exists() or build.poll() is not None)
                frail.kill()
                status = build.wait(timeout=600)
            finally:
                build.kill()
        said = output.read_text(encoding="utf-8")
        assert status == 0, said

        # one died with its second job, which the other was given
        of_one = [job for job in network.jobs() if job.machine == "one"]
        assert [job.status for job in of_one] == ["success", "failed"], said
        assert {job.rule for job in network.jobs() if job.status == "success"} == {"laser", "moe", "routing"}
        (again,) = (job for job in network.jobs() if job.name == of_one[1].name and job.status == "success")
        assert again.machine == "two"

        scripts = "".join(path.read_text() for path in (tmp_path / "scheduler/jobs").glob("*/script"))
        assert "HERDBOOK_CACHE=" in scripts
        assert "hf_of_this_host" not in scripts

        # the bucket has what one machine makes, byte for byte
        plan = plans.load(project.recipe, tmp_path / "local")
        tiny.build(project.recipe, tmp_path / "local")
        entries = {(entry.kind, entry.id): entry for entry in configured(CACHE).entries()}
        made = [product for product in products(plan) if (product.kind, product.id) in entries]
        assert {product.kind for product in made} == {"fetch", "files", "laser", "moe", "routing"}
        for product in made:
            digests = {role: sha256_file(path) for role, path in product.files.items()}
            assert {
                role: sha256 for role, (sha256, _) in entries[product.kind, product.id].files.items()
            } == digests

        # this machine has only what it made itself
        shards = {re.sub(r"\..*", "", path.name) for path in (project.results / "shards").iterdir()}
        assert shards == {"base", "other"}
