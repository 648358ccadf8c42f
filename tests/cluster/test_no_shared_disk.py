"""Results made on two machines that share no disk: the same bytes as on one; a machine that dies loses nothing."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook.cache import configured, products
from herdbook.files import sha256_file
from support import machines, s3_server, tiny, tuned
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


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network without machines, with a server that speaks S3."""
    root = tmp_path_factory.mktemp("network")
    with (
        pytest.MonkeyPatch.context() as patch,
        machines.Network(root) as network,
        s3_server.serve(patch, host=network.address) as url,
    ):
        # what an owner of machines sets there
        network.given = {
            name: value
            for name, value in s3_server.environment(url).items()
            if name.startswith(("AWS_", "NO_"))
        }
        yield network


def workflow(folder):
    """Return a project with files of the workflow of its own."""
    folder.mkdir()
    for name in WORKFLOW:
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return Project(folder)


def track(project, *names):
    """Let git track what jobs elsewhere need."""
    for words in (["init", "--quiet"], ["add", *SENT, *names]):
        subprocess.run(["git", *words], cwd=project.root, check=True)


def options(network):
    """Return the options with which Snakemake hands jobs to a network's machines."""
    return [
        *OPTIONS,
        *("--cluster-generic-submit-cmd", network.scheduler("submit")),
        *("--cluster-generic-status-cmd", network.scheduler("status")),
        *("--config", f"cache={CACHE}"),
    ]


def herd(folder):
    """Return a project with a tiny herd."""
    project = workflow(folder)
    for seed, name in enumerate(("base", "other"), start=1):
        tiny.write_model(folder / "config" / name, seed=seed)
    tiny.write_recipe(project.recipe, MODELS)
    tiny.lock(project.recipe)
    track(project)
    return project


def test_two_machines_that_share_nothing_but_a_bucket(network, tmp_path, monkeypatch):
    project = herd(network.root / "head")
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_host")
    frail = network.add("one", network.given, HANGS)
    sturdy = network.add("two", network.given)
    for machine in (frail, sturdy):
        assert not machine.path("head").exists()
    output = tmp_path / "output.txt"
    command = [sys.executable, "-m", "snakemake", *options(network)]
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

    scripts = "".join(path.read_text() for path in (network.root / "scheduler/jobs").glob("*/script"))
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

    # targets are the same as elsewhere
    done = project.snakemake(*options(network), "-n", "models")
    assert re.findall(r"^(?:local)?rule (\S+):", done.stdout, re.MULTILINE) == ["models"]
    done = project.snakemake(*options(network), "-n", "quantize", check=False)
    assert "nothing to make: config/tiny.yaml has no `quantize`" in done.stdout + done.stderr

    # this machine has only what it made itself
    shards = {re.sub(r"\..*", "", path.name) for path in (project.results / "shards").iterdir()}
    assert shards == {"base", "other"}


def test_a_trial_of_a_search_is_made_there_and_its_measurement_comes_back(network):
    project = workflow(network.root / "search")
    tuned.write(project.recipe.parent, tuned.ONE).rename(project.recipe)
    tiny.lock(project.recipe)
    track(project, *(f"config/{split}.{kind}" for split in tuned.DOCUMENTS for kind in ("yaml", "jsonl")))
    lost = tuned.all_but_one(project.recipe, project.results)
    if "two" not in network.machines:
        network.add("two", network.given)
    before = len(network.jobs())
    done = project.herdbook("tune", "--", *options(network))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [job.rule for job in network.jobs()[before:]] == ["merge", "evaluate_one"]
    assert all(path.exists() for path in lost)
    # with what it took there
    (note,) = (project.results / "spent/evaluate").iterdir()
    assert note.stem == lost[0].stem
    assert json.loads(note.read_text(encoding="utf-8"))["seconds"] > 0
    found = locks.load(locks.path_for(project.recipe)).tuned["sum"].result
    measured = json.loads(lost[0].read_text(encoding="utf-8"))["tasks"]["validation"]["metrics"]
    assert found.trials[2].score == measured["bits_per_byte"]["value"]
    # what another recipe has made is not made again, and weights of trials do not come
    assert {path.name.partition(".")[0] for path in (project.results / "shards").iterdir()} <= {"a", "b"}
