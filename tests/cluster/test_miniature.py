"""The miniature herd on a real SLURM: the release is, byte for byte, the one that `make demo` built on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.project import REPOSITORY, Project

RELEASE = Path("Miniature-4x135M-laser/release")
HERE = REPOSITORY / "results" / RELEASE
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (HERE / "SHA256SUMS").exists(), reason="needs what `make demo` builds"),
]
# The nodes are one machine, which has memory for three measurements at once; they keep no accounts of jobs; and the test is in
# a hurry.
OPTIONS = (
    "--profile", "profiles/slurm", "--jobs", "3", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3",
)  # fmt: skip


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_release_has_the_bytes_of_one_machine(cluster, tmp_path):
    project = Project(tmp_path / "project")
    for path in [*(REPOSITORY / "config").iterdir(), REPOSITORY / "demo"]:
        place = tmp_path / "project" / path.relative_to(REPOSITORY)
        if not place.exists():
            place.symlink_to(path)
    settings = {"recipe": "config/miniature.yaml"}
    (project.root / "config/config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    site = tmp_path / "cluster.yaml"
    site.write_text(yaml.safe_dump({"account": "herd", "partition": "main"}), encoding="utf-8")
    own, theirs = project.environment(forked=False), cluster.environment
    path = f"{theirs['PATH'].split(':')[0]}:{own['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *OPTIONS],
        cwd=project.root,
        env={**own, **theirs, "PATH": path, "HERDBOOK_CLUSTER": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # a machine that does much else may take longer than the plan allows; memory has to be enough for each
    lost = [job for job in cluster.jobs("") if job["JobState"] not in {"COMPLETED", "TIMEOUT"}]
    assert lost == []
    assert cluster.jobs("rule_evaluate")
    assert contents(project.results / RELEASE) == contents(HERE)
