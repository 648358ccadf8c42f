"""The resources that jobs request, and those that they use: memory, time and disk, on models of full width and few layers.

Two recipes, `4x7B` (Mistral-7B's widths) and `8x22B` (those of Mixtral-8x22B's experts), each with sources of random weights
and few layers, are built by Snakemake from the sources to a verified release. Every `herdbook` command of a job is
monitored: the peak of the resident memory of all its processes, and of the part that is not mapped files; seconds; bytes
written. They are printed beside the job's request. With `--plan`, nothing is built: both recipes are planned at full depth,
from sparse files with real headers, and the largest request of each rule is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import yaml
from pytest_local_hub import LocalHub, OnDisk
from pytest_local_hub.client import environment as hub_environment
from wide import GB, MB, ROOT, buttercup, write_source

from herdbook.forkserver import VARIABLE

SECONDS = 0.1  # between two samples of a job's memory
BLOCK = re.compile(r"^\s*(?:local)?rule (\S+):$")
ASKED = re.compile(r"^\s*resources: (.*)$")
THREADS = re.compile(r"^\s*threads: (\d+)$")
CALL = re.compile(r"^\s*(?:Shell command: )?herdbook (.+?) (?:\d?>|$)")


@dataclass(frozen=True)
class Shape:
    """One of the two recipes: the sources' widths and depth, and the source of each expert."""

    widths: buttercup.Widths
    layers: int  # at full depth
    experts: tuple[str, ...]
    matrices: tuple[str, ...]  # that are lasered; a few of each kind suffice to measure their resources
    measures_quantized: bool


SHAPES = {
    "4x7B": Shape(buttercup.FULL, 32, ("one", "two", "one", "three"), ("mlp.up_proj", "mlp.down_proj"), True),
    "8x22B": Shape(
        buttercup.Widths(hidden=6144, intermediate=16384, heads=48, kv_heads=8, vocabulary=32000),
        56,
        ("one", "two") * 4,
        ("mlp.down_proj",),
        measures_quantized=False,  # it would need twice the model's memory
    ),
}


def recipe_of(shape: Shape, layers: int, where: str) -> dict[str, Any]:
    """Return the recipe: LASER on all sources (with a search on one), a mixture, measured and quantized.

    Args:
        shape: One of the two recipes.
        layers: Number of layers of its sources; the upper three eighths are lasered.
        where: ``hub`` or ``folder``.
    """
    names = list(dict.fromkeys(shape.experts))
    chosen = {"matrices": list(shape.matrices), "layers": f"{layers * 5 // 8}-{layers - 1}"}
    models: dict[str, Any] = {name: {where: f"herd/{name}" if where == "hub" else name} for name in names}
    for number, name in enumerate(names):
        lasered: dict[str, Any] = {"laser": name, "rank": {"fraction": 0.9}, **chosen}
        if number == 0:
            lasered |= {"calibration": "mixed", "guard": {"margin": 0.005}}
        models[f"{name}-laser"] = lasered
    models["mixture"] = {
        "moe": {
            "base": f"{names[0]}-laser",
            "experts": [
                {"model": f"{name}-laser", "prompts": [f"Write a story about the number {number}."]}
                for number, name in enumerate(shape.experts)
            ],
        }
    }
    text = "miniature/text/{}/validation.jsonl"
    return {
        "models": models,
        "release": {"model": "mixture", "name": "Mixture", "license": "apache-2.0"},
        "evaluate": {"tasks": ["tasks/prose.yaml"], "models": ["one-laser", "mixture"], "limit": 1},
        "calibration": {
            "mixed": {"data": [text.format("prose")], "split": "validation", "windows": 30, "tokens": 32}
        },
        "routing": {"texts": ["mixed"]},
        "quantize": {"methods": ["Q8_0", "Q4_K_M"], "evaluate": shape.measures_quantized},
    }


def lay_out(folder: Path, recipe: dict[str, Any]) -> None:
    """Set up a folder with the workflow and a recipe."""
    (folder / "config").mkdir()
    for name in ("Snakefile", "rules", "envs", "profiles", "templates", "config/miniature"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "config/tasks", folder / "config/tasks")
    (folder / "config/config.yaml").write_text("recipe: config/herd.yaml\n", encoding="utf-8")
    (folder / "config/herd.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


# -- requested resources -------------------------------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    """Return environment variables with which the workflow finds this checkout and its programs, each a process of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), VARIABLE: "", **more}


def snakemake(*arguments: str) -> list[str]:
    """Return a command."""
    return [sys.executable, "-m", "snakemake", *arguments]


def requested(folder: Path, cores: int, *config: str) -> dict[str, dict[str, Any]]:
    """Return each job's request by its call of `herdbook`: its rule, and amounts by resource."""
    options = ["--config", *config] if config else []
    command = snakemake("--dry-run", "--printshellcmds", "--cores", str(cores), *options)
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    by_call: dict[str, dict[str, Any]] = {}
    job: dict[str, Any] = {}
    for line in done.stdout.splitlines() + done.stderr.splitlines():
        if block := BLOCK.match(line):
            job = {"rule": re.sub("^(assemble|files)_.*", r"\1", block[1]), "threads": 1}
        elif resources := ASKED.match(line):
            job |= {name: int(amount) for name, amount in re.findall(r"(\w+)=(\d+)\b", resources[1])}
        elif threads := THREADS.match(line):
            job["threads"] = int(threads[1])
        elif call := CALL.match(line):
            by_call[call[1]] = job
    return by_call


# -- used resources ------------------------------------------------------------------------------------------------------


def watch(log: Path, command: list[str]) -> int:
    """Run a command; append the resources that it used to a log."""
    started, peak, own, of_largest = time.perf_counter(), 0, 0, 0
    process = psutil.Popen(command)
    while True:
        resident, anonymous = 0, 0
        for member in _family(process):
            status = _status(member.pid)
            resident += status.get("VmRSS", 0)
            anonymous += status.get("RssAnon", 0)
            of_largest = max(of_largest, status.get("VmHWM", 0))
        peak, own = max(peak, resident), max(own, anonymous)
        try:
            status = process.wait(SECONDS)
            break
        except psutil.TimeoutExpired:
            continue
    # The kernel adds the bytes that ended children have written to those of this process.
    written = int(re.search(r"^wchar: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)[1])
    used = {
        "call": " ".join(command[1:]),
        "seconds": time.perf_counter() - started,
        "peak": max(peak, of_largest),
        "own": own,
        "written": written,
    }
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(used) + "\n")
    return int(status)


def _family(process: psutil.Popen) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _status(pid: int) -> dict[str, int]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return {name: 1024 * int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def build(folder: Path, cores: int) -> list[dict[str, Any]]:
    """Build, and return the resources that each job used."""
    log, real = folder / "used.jsonl", shutil.which("herdbook", path=environment()["PATH"])
    wrapper = folder / "bin/herdbook"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} --watch {log} {real} "$@"\n')
    wrapper.chmod(0o755)
    memory = int(0.9 * psutil.virtual_memory().available / MB)
    variables = environment()
    variables["PATH"] = f"{wrapper.parent}{os.pathsep}{variables['PATH']}"
    command = snakemake("--cores", str(cores), "--resources", f"mem_mb={memory}", "--keep-going")
    subprocess.run(command, cwd=folder, env=variables, check=True)
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def measure(name: str, layers: int, cores: int, work: Path | None) -> None:
    """Build one of the recipes with a number of layers, and print a row for each rule: its most demanding jobs."""
    shape = SHAPES[name]
    widths = replace(shape.widths, layers=layers)
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        folder = Path(temporary)
        lay_out(folder, recipe_of(shape, layers, "folder"))
        tokenizer = folder / "tokenizer"
        buttercup.write_tokenizer(
            tokenizer, [str(path) for path in (ROOT / "config/miniature/text").glob("*/*.jsonl")]
        )
        for seed, source in enumerate(dict.fromkeys(shape.experts)):
            write_source(folder / "config" / source, widths, seed, tokenizer)
        command = [sys.executable, "-m", "herdbook", "lock", "--recipe", "config/herd.yaml"]
        subprocess.run(command, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
        planned = requested(folder, cores)
        used = build(folder, cores)
    print(f"{name}, {layers} of {shape.layers} layers, {cores} cores\n")
    print(
        "| rule | jobs | memory requested, MB | resident | own | ratio | limit, min | time, s | disk requested, MB | written | ratio |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    rules: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for job in used:
        if job["call"] in planned:
            request = planned[job["call"]]
            rules.setdefault(request["rule"], []).append((request, job))
        else:
            print("not in the plan:", job["call"], file=sys.stderr)
    for rule, jobs in rules.items():
        for request, job in _most_demanding(jobs):
            memory, disk = request.get("mem_mb", 0), request.get("disk_mb", 0)
            print(
                f"| `{rule}` | {len(jobs)} | {memory} | {job['peak'] / MB:.0f} | {job['own'] / MB:.0f} "
                f"| {memory * MB / job['peak']:.2f} | {request.get('runtime', 0)} | {job['seconds']:.1f} "
                f"| {disk} | {job['written'] / MB:.0f} | {disk * MB / max(job['written'], 1):.2f} |"
            )


def _most_demanding(
    jobs: list[tuple[dict[str, Any], dict[str, Any]]],
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the job that came nearest to its request, and the one that used most memory; once if they are the same."""
    nearest = max(jobs, key=lambda pair: pair[1]["peak"] / max(pair[0].get("mem_mb", 0), 1))
    largest = max(jobs, key=lambda pair: pair[1]["peak"])
    return [nearest] if nearest is largest else [nearest, largest]


# -- at full depth -------------------------------------------------------------------------------------------------------


def plan(name: str) -> None:
    """Print the largest request of each rule of one of the recipes at full depth."""
    shape = SHAPES[name]
    with tempfile.TemporaryDirectory() as temporary, LocalHub() as hub:
        folder = Path(temporary)
        lay_out(folder, recipe_of(shape, shape.layers, "hub"))
        for source in dict.fromkeys(shape.experts):
            home = folder / f"source-{source}"
            buttercup.write_hollow(home, replace(shape.widths, layers=shape.layers), 5 * GB)
            files = {
                path.name: OnDisk(path, hashlib.sha256(str(path).encode()).hexdigest())
                if path.suffix == ".safetensors"
                else path
                for path in home.iterdir()
            }
            hub.add_repo(f"herd/{source}", files, license="apache-2.0")
        command = [sys.executable, "-m", "herdbook", "lock", "--recipe", "config/herd.yaml"]
        variables = hub_environment(hub, folder / "home")
        subprocess.run(command, cwd=folder, env=variables, check=True, stdout=subprocess.DEVNULL)
        on_cpu = requested(folder, 64)
        on_gpu = requested(folder, 64, "device=cuda", "gpu_memory=80")
    print(f"{name}, {shape.layers} layers\n")
    print("| rule | jobs | cores | memory, GB | limit, h | disk, GB | GPUs of 80 GB | memory of each, GB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for rule in dict.fromkeys(job["rule"] for job in on_cpu.values()):
        jobs = [job for job in on_cpu.values() if job["rule"] == rule]
        gpu_jobs = [job for job in on_gpu.values() if job["rule"] == rule]

        def most(resource: str, among: list[dict[str, Any]] = jobs) -> int:
            return max(job.get(resource, 0) for job in among)

        gpus = most("gpu", gpu_jobs)
        cells = (f"{gpus}", f"{most('gpu_mem_mb', gpu_jobs) / 1000:.1f}") if gpus else ("", "")
        print(
            f"| `{rule}` | {len(jobs)} | {most('threads')} | {most('mem_mb') / 1000:.1f} | {most('runtime') / 60:.1f} "
            f"| {most('disk_mb') / 1000:.1f} | {' | '.join(cells)} |"
        )


def main() -> None:
    """Build and measure, or plan, and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help=f"one of {', '.join(SHAPES)} (default: all)"
    )
    parser.add_argument("--plan", action="store_true", help="do not build; plan at full depth")
    parser.add_argument(
        "--layers", type=int, default=1, help="layers of the models that are built (default: %(default)s)"
    )
    parser.add_argument("--cores", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--work", type=Path, help="folder for 20 or 40 GB (default: a temporary one)")
    options = parser.parse_args()
    for name in options.recipes or SHAPES:
        if options.plan:
            plan(name)
        else:
            measure(name, options.layers, options.cores, options.work)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--watch"]:
        sys.exit(watch(Path(sys.argv[2]), sys.argv[3:]))
    main()
