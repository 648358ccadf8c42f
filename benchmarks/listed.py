"""The jobs that Snakemake lists in a dry run or in the log of a build, and folders to run it in."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_local_hub import LocalHub, OnDisk
from pytest_local_hub.client import environment
from wide import ROOT, buttercup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TARGET = "all"
STAMP = re.compile(r"^ *\[(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\]")
RULE = re.compile(r"^( *)(?:local)?rule (\S+):$")
GROUP = re.compile(r"Group job (\S+) \(jobs in lexicogr\. order\):$")
FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: ")
ABOUT = re.compile(r"^ +(input|output|jobid|threads|resources): (.*)$")


@dataclass(frozen=True)
class Listed:
    """A job in Snakemake's output.

    Args:
        number: Snakemake's number of the job.
        rule: Its rule; without the model's name for rules that exist once per model.
        inputs: Its input files.
        outputs: Its output files.
        threads: Its cores.
        resources: Its other resources, by name.
        local: Whether it runs on Snakemake's host with any profile.
        group: Number of the submission that it shares with other jobs; None if it is submitted alone.
        started: When it began, in seconds since 1970; in a dry run, when it was listed.
        ended: When it ended; None in a dry run.
    """

    number: int
    rule: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    threads: int = 1
    resources: dict[str, int] = field(default_factory=dict)
    local: bool = False
    group: int | None = None
    started: float = 0.0
    ended: float | None = None


def read(lines: Iterable[str]) -> list[Listed]:
    """Parse what Snakemake printed or logged; return the jobs in the order of their listing, without the target."""
    # each file in rules/ has the name of its rule
    local = {path.stem for path in (ROOT / "rules").glob("*.smk") if "localrule: True" in path.read_text()}
    jobs: dict[int, Listed] = {}
    job, group, groups, now = Listed(-1, TARGET), None, 0, 0.0
    for line in lines:
        if stamp := STAMP.match(line):
            now = time.mktime(time.strptime(stamp[1]))
        if GROUP.search(line):
            group = groups
            groups += 1
        elif rule := RULE.match(line):
            name = re.sub(r"^(assemble|files)_.*", r"\1", rule[2])
            if not rule[1]:
                group = None
            is_local = name in local or name == "files"
            job = Listed(-1, name, local=is_local, group=group, started=now)
        elif done := FINISHED.match(line):
            number = int(done[1])
            if number in jobs:
                jobs[number] = replace(jobs[number], ended=now)
        elif about := ABOUT.match(line):
            job = _with(job, *about.groups())
            if job.rule != TARGET and job.number >= 0:
                jobs[job.number] = job
    return list(jobs.values())


def _with(job: Listed, name: str, value: str) -> Listed:
    match name:
        case "input":
            return replace(job, inputs=tuple(value.split(", ")))
        case "output":
            return replace(job, outputs=tuple(value.split(", ")))
        case "jobid":
            return replace(job, number=int(value))
        case "threads":
            return replace(job, threads=int(value))
        case _:
            resources = {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)(?:,|$)", value)}
            return replace(job, resources=resources)


def parents(jobs: Iterable[Listed]) -> dict[int, set[int]]:
    """Return, for each job's number, the numbers of the jobs whose files it reads."""
    jobs = list(jobs)
    makers = {path: job.number for job in jobs for path in job.outputs}
    return {job.number: {makers[path] for path in job.inputs if path in makers} for job in jobs}


def link_workflow(folder: Path) -> None:
    """Make a folder in which the workflow can run: links to the repository's files, and a folder for recipes."""
    (folder / "config").mkdir(parents=True)
    for name in ("Snakefile", "rules", "envs", "profiles", "templates", "config/miniature"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "config/tasks", folder / "config/tasks")


@contextmanager
def full_size_hub(folder: Path) -> Iterator[dict[str, str]]:
    """Make such a folder for config/buttercup.yaml, and a Hub with sources of full size without weights.

    Yields:
        The environment of programs that use this Hub.
    """
    link_workflow(folder)
    buttercup.copy_recipe(folder)
    (folder / "config/config.yaml").write_text("recipe: config/buttercup.yaml\n", encoding="utf-8")
    with LocalHub() as hub:
        for number, repo in enumerate(buttercup.SOURCES):
            source = folder / f"source{number}"
            buttercup.write_full(source, repo)
            files = {
                path.name: OnDisk(path, hashlib.sha256(str(path).encode()).hexdigest())
                if path.suffix == ".safetensors"
                else path
                for path in source.iterdir()
            }
            hub.add_repo(repo, files, license="apache-2.0")
        yield environment(hub, folder / "home")


def herdbook(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> None:
    """Run a command of Herdbook's in a folder."""
    command = [sys.executable, "-m", "herdbook", *arguments]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def lock_full_size(folder: Path) -> None:
    """Make a folder for config/buttercup.yaml, locked against sources of full size without weights."""
    with full_size_hub(folder) as variables:
        herdbook(folder, "lock", "config/buttercup.yaml", variables=variables)


def snakemake(folder: Path, *arguments: str) -> list[str]:
    """Run Snakemake in a folder, and return the lines of its output."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout.splitlines() + done.stderr.splitlines()
