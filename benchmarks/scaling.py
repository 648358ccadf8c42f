"""Wall time against workers: measured here for 1 and 2, simulated for Buttercup-4x7B at full size on 1 to 64 GPU nodes.

First a recipe is built from scratch with `snakemake --cores 1` and `--cores 2`. The jobs' times in the first build and their
dependencies give a simulated schedule for both, which is compared with the measured wall times. Then a dry run with
profiles/slurm lists the jobs of config/buttercup.yaml, each job's time is computed from the plan and the rates of this
machine, and the same simulation runs on more and more nodes. Printed: wall time, speed-up, utilization, and the critical
path, job by job.

Wheels are taken from the cache if it contains them; all results are built. Quantities that cannot be measured here (the
network, a missing GPU, a scheduler's delays) are assumed, and marked as such.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import rates as measured
import torch
import yaml
from full_size import full_size, planned, rates_of, runner, seconds_of
from listed import ROOT, link_workflow, lock_full_size, parents, read, snakemake
from schedule import Machine, Task, simulate

from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.inference.tokenizer import load_tokenizer
from herdbook.recipe.quantize import Quantize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from listed import Listed

    from herdbook.needs import Rates
    from herdbook.plan import Plan

# The peak of an A100 without tensor cores is 9.7e12 operations per second in float64 and 19.5e12 in float32, by NVIDIA's data
# sheet. Decompositions reach a small share of such peaks, products of matrices a larger one.
GPU_FLOAT64, GPU_FLOAT32 = 9.7e12 / 10, 19.5e12 / 3


def main() -> None:
    """Build, measure, simulate, print."""
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        work = Path(name)
        full = work / "full"
        lock_full_size(full)
        if options.rates and options.rates.exists():
            known = json.loads(options.rates.read_text(encoding="utf-8"))
            print(f"Rates: read from {options.rates}, measured in an earlier run.")
        else:
            known = measure(work, options) | {"runner": runner(full)}
            if options.rates:
                options.rates.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        full_size(full, known, options)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--recipe", type=Path, help="recipe to build (default: the miniature, with fewer measurements)")
    add("--work", type=Path, help="folder for 10 GB (default: a temporary one)")
    add(
        "--rates",
        type=Path,
        help="file of rates: if it exists, it is read instead of measuring; else it is written",
    )
    assumed = parser.add_argument_group("assumptions")
    add = assumed.add_argument
    add(
        "--network",
        type=float,
        default=100e6,
        help="bytes per second of each download (default: %(default).3g)",
    )
    add(
        "--delay",
        type=float,
        default=40,
        help="seconds until the end of a submission is noticed (default: %(default)g, the interval of SLURM's plugin)",
    )
    for kind, default in (("float64", GPU_FLOAT64), ("float32", GPU_FLOAT32)):
        text = "operations per second of a GPU, if none can be measured (default: %(default).3g, {} of an A100's peak)"
        add(
            f"--gpu-{kind}",
            type=float,
            default=default,
            help=text.format("a tenth" if kind == "float64" else "a third"),
        )
    add("--cores", type=int, default=16, help="cores of a node (default: %(default)s)")
    add("--memory", type=float, default=256, help="memory of a node in GB (default: %(default)g)")
    add(
        "--on-gpu",
        nargs="*",
        default=[],
        metavar="RULE",
        help="rules that run on a GPU besides those that request one",
    )
    add(
        "--figure",
        type=Path,
        help="SVG file for a drawing of the schedule on the smallest sufficient number of nodes",
    )
    return parser.parse_args()


# -- measured ----------------------------------------------------------------------------------------------------------


def measure(work: Path, options: argparse.Namespace) -> dict[str, float]:
    """Build with 1 and 2 workers, compare with the simulation, and return this machine's rates."""
    recipe = options.recipe.absolute() if options.recipe else None
    walls, lists = {}, {}
    for cores in (1, 2):
        walls[cores], lists[cores], folder, used = build(work / f"build{cores}", cores, recipe)
        load = os.getloadavg()[1]
        print(
            f"built with --cores {cores}: {walls[cores]:.0f} s, {len(lists[cores])} jobs; {load:.1f} processes ran or "
            f"waited in the last minutes, on {os.cpu_count()} cores",
            flush=True,
        )
    plan = plans.load(used, folder / "results")
    source = work / "base"
    measured.write_layer(source)
    known = {
        "start": measured.start(),
        "disk": measured.disk(work),
        "float64": measured.float64(),
        "float32": measured.float32(source),
        "quantized": measured.quantized(),
        "token_bytes": bytes_of_a_token(plan),
    }
    if torch.cuda.is_available():
        known |= {"gpu_float64": measured.float64("cuda"), "gpu_float32": measured.float32(source, "cuda")}
    threads = requested_threads(folder)
    builds = {
        cores: [replace(job, threads=threads[job.outputs[0]]) for job in jobs]
        for cores, jobs in lists.items()
    }
    compare(plan, builds, walls, rates_of(known, options)[0])
    return known


def build(folder: Path, cores: int, recipe: Path | None) -> tuple[float, list[Listed], Path, Path]:
    """Build a recipe from scratch; return seconds, the jobs with their times, the folder, and the recipe."""
    link_workflow(folder)
    if recipe is None:
        recipe = write_small(folder)
    (folder / "config/config.yaml").write_text(yaml.safe_dump({"recipe": str(recipe)}), encoding="utf-8")
    os.environ.pop("HERDBOOK_CACHE", None)
    began = time.perf_counter()
    snakemake(folder, "--cores", str(cores))
    seconds = time.perf_counter() - began
    (log,) = (folder / ".snakemake/log").glob("*.log")
    return seconds, read(log.read_text(encoding="utf-8").splitlines()), folder, folder / recipe


def write_small(folder: Path) -> Path:
    """Write the miniature's recipe with two measurements instead of nine, and one quantized file; return its path."""
    recipe = recipes.load(ROOT / "config/miniature.yaml")
    few = {"models": ["base", recipe.release.model]}
    parts = {
        "evaluate": recipe.evaluate.model_copy(update=few) if recipe.evaluate else None,
        "quantize": Quantize(methods=["Q8_0"], evaluate=False),
    }
    content = recipe.model_copy(update=parts).model_dump(mode="json", by_alias=True, exclude_unset=True)
    shutil.copytree(ROOT / "config/leaderboards", folder / "config/leaderboards")
    shutil.copy(ROOT / "config/miniature.lock.json", folder / "config/small.lock.json")
    (folder / "config/small.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return Path("config/small.yaml")


def requested_threads(folder: Path) -> dict[str, int]:
    """Return the threads that each job requests if enough cores exist, by its first output."""
    jobs = read(snakemake(folder, "--dry-run", "--forceall", "--cores", "1000"))
    return {job.outputs[0]: job.threads for job in jobs}


def bytes_of_a_token(plan: Plan) -> float:
    """Return the bytes of the measured text per token of the released model's tokenizer."""
    tokenizer = load_tokenizer(plan.layout.folder(plan.released))
    size = tokens = 0
    for path in sorted((ROOT / "config/miniature/text").glob("*/test.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            text = json.loads(line)["text"]
            size += len(line.encode())
            tokens += len(tokenizer(text)["input_ids"])
    return size / tokens


def lasted(job: Listed) -> float:
    """Return the seconds that a job took in a build."""
    if job.ended is None:
        raise SystemExit(f"Snakemake's log does not contain the end of {job.rule} {' '.join(job.outputs)}")
    return job.ended - job.started


def compare(plan: Plan, builds: dict[int, list[Listed]], walls: dict[int, float], cpu: Rates) -> None:
    """Print measured and simulated wall times: from each build's own times, from those of one worker, and from rates."""
    find = planned(plan)
    jobs = builds[1]
    own = {cores: {job.number: lasted(job) for job in listed} for cores, listed in builds.items()}
    by_rates = {job.number: seconds_of(plan, find(job), cpu, 1) for job in jobs}
    around = {
        cores: walls[cores]
        - max(job.started + lasted(job) for job in listed)
        + min(job.started for job in listed)
        for cores, listed in builds.items()
    }  # until the first job, and after the last

    def wall(tasks: list[Task], cores: int) -> str:
        return f"{around[cores] + simulate(tasks, [Machine({'cores': cores})]).seconds:.0f}"

    print(
        "\n| workers | wall time, s | ratio | simulated from its jobs' times, s | from those of one worker, s | from rates, s |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for cores, seconds in walls.items():
        cells = (
            str(cores),
            f"{seconds:.0f}",
            f"{walls[1] / seconds:.2f}",
            wall(one_machine(builds[cores], own[cores], cores), cores),
            wall(one_machine(jobs, own[1], cores, cpu.start), cores),
            wall(one_machine(jobs, by_rates, cores, cpu.start), cores),
        )
        print(f"| {' | '.join(cells)} |")
    print("\n| rule | jobs | one worker, s | from rates, s |\n| --- | ---: | ---: | ---: |")
    rules = defaultdict(list)
    for job in jobs:
        rules[job.rule].append(job.number)
    for rule, numbers in rules.items():
        sums = (sum(times[number] for number in numbers) for times in (own[1], by_rates))
        print(f"| `{rule}` | {len(numbers)} | {' | '.join(f'{seconds:.1f}' for seconds in sums)} |")
    print(flush=True)


def one_machine(
    jobs: Sequence[Listed], times: dict[int, float], cores: int, start: float = float("inf")
) -> list[Task]:
    """Return a build's jobs as tasks of one machine.

    Args:
        jobs: The jobs.
        times: Each job's seconds, by number.
        cores: Cores of the machine.
        start: The seconds of each job that more threads do not shorten, if ``times`` are those of a single thread. By
            default all of them, for times that were measured with all of the job's threads.
    """
    waits, tasks = parents(jobs), []
    for job in jobs:
        threads = min(job.threads, cores)
        once = min(start, times[job.number])
        seconds = once + (times[job.number] - once) / threads
        after = frozenset(map(str, waits[job.number]))
        tasks.append(Task(str(job.number), seconds, after, {"cores": threads}))
    return tasks


if __name__ == "__main__":
    sys.exit(main())
