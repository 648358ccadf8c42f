"""How many jobs a release submits to a cluster: counted from a dry run of config/buttercup.yaml at full size.

The recipe is locked against sources of full size without weights, on a local Hub, and planned as for any build; then
Snakemake says, with profiles/slurm, what it would run and in which groups. Printed for each rule: jobs, submissions, and the
most that one of its jobs asks for.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from pytest_local_hub import LocalHub, OnDisk
from pytest_local_hub.client import environment

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import buttercup  # noqa: E402

JOB = re.compile(r"^( *)(?:local)?rule (\S+):$")
GROUP = re.compile(r"Group job (\S+) \(jobs in lexicogr\. order\):$")
RESOURCES = re.compile(r"^ *resources: (.*)$")
THREADS = re.compile(r"^ *threads: (\d+)$")


def lock(folder: Path) -> None:
    """Put the recipe and what it names into a folder, and lock it."""
    (folder / "config").mkdir()
    for name in ("Snakefile", "rules", "envs", "profiles", "templates", "demo"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "config/buttercup.yaml", folder / "config")
    shutil.copytree(ROOT / "config/tasks", folder / "config/tasks")
    (folder / "config/config.yaml").write_text("recipe: config/buttercup.yaml\n", encoding="utf-8")
    with LocalHub() as hub:
        for place, repo in enumerate(buttercup.SOURCES):
            source = folder / f"source{place}"
            buttercup.write_full(source, repo)
            files = {
                path.name: OnDisk(path, hashlib.sha256(str(path).encode()).hexdigest())
                if path.suffix == ".safetensors"
                else path
                for path in source.iterdir()
            }
            hub.add_repo(repo, files, license="apache-2.0")
        command = [sys.executable, "-m", "herdbook.cli.main", "lock", "--recipe", "config/buttercup.yaml"]
        subprocess.run(command, cwd=folder, env=environment(hub, folder / "home"), check=True)


def dry_run(folder: Path, profile: str) -> list[str]:
    """Return what a dry run says."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--profile", profile]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout.splitlines() + done.stderr.splitlines()


def count(lines: list[str]) -> dict[str, Counter[str]]:
    """Return the numbers of each rule: jobs, submissions, and the largest request of each resource."""
    found: dict[str, Counter[str]] = {}
    # a file of rules has the name of its rule
    local = {path.stem for path in (ROOT / "rules").glob("*.smk") if "localrule: True" in path.read_text()}
    grouped, rule, first = "", "", False
    for line in lines:
        if group := GROUP.search(line):
            grouped, first = group[1], True
        elif job := JOB.match(line):
            indented, name = job.groups()
            rule = re.sub(r"^assemble_.*", "assemble", name)
            if not indented:
                grouped = ""
            numbers = found.setdefault(rule, Counter())
            numbers["jobs"] += 1
            numbers["submissions"] += 0 if rule in local else int(first) if grouped else 1
            numbers["threads"] = max(numbers["threads"], 1)
            first = False
        elif asked := RESOURCES.match(line):
            for name, amount in re.findall(r"(mem_mb|runtime)=(\d+)", asked[1]):
                found[rule][name] = max(found[rule][name], int(amount))
        elif threads := THREADS.match(line):
            found[rule]["threads"] = max(found[rule]["threads"], int(threads[1]))
    found.pop("all", None)
    return found


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="profiles/slurm", help="default: %(default)s")
    profile = parser.parse_args().profile
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        lock(folder)
        found = count(dry_run(folder, profile))
    print("| rule | jobs | submitted | cores | memory, GB | limit, h |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for rule, numbers in found.items():
        asked = (numbers["threads"], f"{numbers['mem_mb'] / 1000:.1f}", f"{numbers['runtime'] / 60:.1f}")
        cells = asked if numbers["submissions"] else ("", "", "")
        print(f"| `{rule}` | {numbers['jobs']} | {numbers['submissions']} | {' | '.join(map(str, cells))} |")
    total = sum(found.values(), Counter())
    print(f"| all | {total['jobs']} | {total['submissions']} | | | |")


if __name__ == "__main__":
    main()
