"""A Mixture of Experts with layers as wide as Mistral-7B's, from its sources on the disk to proven weights, in one run.

The models are generated: random weights, as wide as Mistral-7B, with few layers. Herdbook fetches them and makes the mixture,
with the SHA-256 of every file and tensor. It is compared with `sha256sum` of sources and results and one `cp` of the results, with
the same by `openssl`, which hashes faster on most processors, and with mergekit-moe and `sha256sum` of its files. Routers are
random, so that only the merging is measured. All is run in each round, and the fastest round counts. Printed: seconds, the
ratio to the first row, seconds of processors, and the largest resident memory of a process. Then the cost of another prompt, and the
cost by number of layers and experts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from wide import GB, MB, buttercup, write_source

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.errors import StepError
from herdbook.lock.pin import pin
from herdbook.steps.assemble.step import assemble
from herdbook.tools.external import Tool

if TYPE_CHECKING:
    from herdbook.plan import Part, Plan

OURS, YARDSTICK = "ours, all digests", "sha256sum, cp"
MERGEKIT = Tool("mergekit", "0.1.5", "mergekit-moe", "mergekit.scripts.moe")


def write_recipe(folder: Path, experts: list[str], name: str, **moe: Any) -> Path:
    """Write a recipe of the mixture and its lock; return its path."""
    listed = [
        {"model": model, "prompts": [f"w{3 + number} w{20 + number}"]} for number, model in enumerate(experts)
    ]
    models: dict[str, Any] = {model: {"folder": model} for model in dict.fromkeys(experts)}
    models["mixture"] = {"moe": {"base": experts[0], "gate": "random", "experts": listed, **moe}}
    release = {"model": "mixture", "name": "Mixture", "license": "unknown"}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"models": models, "release": release}, sort_keys=False))
    locks.write(pin(recipes.load(path), path, lambda _: None), locks.path_for(path))
    return path


@dataclass(frozen=True)
class Cost:
    """Seconds that passed, seconds of processors, the peak of a process's resident memory, and an exit status."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    status: int = 0

    def then(self, other: Cost) -> Cost:
        """Return the cost of both, one after the other."""
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_bytes, other.peak_bytes),
        )


def run(
    command: list[str],
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
    accepted: tuple[int, ...] = (0,),
) -> Cost:
    """Run a command; SystemExit with its last output if its exit status is not accepted."""
    peak = 0

    def watch() -> None:
        nonlocal peak
        while True:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            line = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
            if line is None:
                return
            peak = max(peak, int(line.split()[1]) * 1024)
            time.sleep(0.01)

    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
        watching = threading.Thread(target=watch)
        watching.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        watching.join()
        if process.returncode not in accepted:
            output.seek(0)
            raise SystemExit(f"{command} failed:\n{output.read().decode()[-2000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak, process.returncode)


def at_once(commands: list[list[str]], workers: int, environment: dict[str, str] | None = None) -> Cost:
    """Run commands, several at once."""
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        costs = list(pool.map(lambda command: run(command, environment), commands))
    return Cost(
        time.perf_counter() - started,
        sum(cost.cpu_seconds for cost in costs),
        max(cost.peak_bytes for cost in costs),
    )


def run_parts(plan: Plan, parts: list[Part], workers: int) -> Cost:
    """Make parts as Snakemake does, each by its own command."""
    commands = [
        [sys.executable, "-m", "herdbook", part.rule, part.key, "--results", str(plan.layout.root)]
        for part in parts
    ]
    return at_once(commands, workers, {**os.environ, "HERDBOOK_RECIPE": str(plan.recipe_path)})


def source_parts(plan: Plan) -> list[Part]:
    """Return the parts of the sources."""
    return [part for part in plan.parts.values() if part.rule == "fetch"]


def mixture_parts(plan: Plan) -> list[Part]:
    """Return the parts of the mixture that do not exist."""
    return [part for part in plan.released.parts if not plan.layout.shard(part).exists()]


def warm(paths: list[Path]) -> None:
    """Read files, so that they are in the page cache."""
    for path in paths:
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def clear(folder: Path) -> None:
    """Remove a folder, and wait until the disk has written everything."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def main() -> None:
    """Generate the models, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--layers", type=int, default=4, help="default: %(default)s, 6.5 GB of output")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="jobs at once (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s; the fastest counts")
    parser.add_argument("--work", type=Path, help="folder for 30 GB (default: a temporary one)")
    parser.add_argument("--no-mergekit", action="store_true", help="skip mergekit-moe")
    parser.add_argument("--no-prompt", action="store_true", help="skip the cost of another prompt")
    parser.add_argument("--no-scaling", action="store_true", help="skip the cost by layers and experts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        measure(Path(name), options)


def measure(work: Path, options: argparse.Namespace) -> None:
    """Print all tables."""
    herd = ["base", "one", "base", "two"]
    for seed, model in enumerate(dict.fromkeys(herd)):
        write_source(work / model, buttercup.Widths(layers=options.layers), seed)
    plan = plans.load(write_recipe(work, herd, "recipe"), work / "results")
    sources = [work / model / "model.safetensors" for model in dict.fromkeys(herd)]
    shards = [plan.layout.shard(part) for part in plan.released.parts]
    rounds: list[dict[str, Cost]] = []
    for _ in range(options.rounds):
        shutil.rmtree(work / "results", ignore_errors=True)
        os.sync()
        warm(sources)
        costs = {OURS: run_parts(plan, source_parts(plan), options.workers)}
        costs["  of this, fetch"] = costs[OURS]
        costs["  of this, moe"] = run_parts(plan, mixture_parts(plan), options.workers)
        costs[OURS] = costs[OURS].then(costs["  of this, moe"])
        for name, hashing in {
            YARDSTICK: ["sha256sum"],
            "openssl, cp": ["openssl", "dgst", "-sha256"],
        }.items():
            if not shutil.which(hashing[0]):
                continue
            warm([*sources, *shards])
            os.sync()
            costs[name] = at_once([[*hashing, str(path)] for path in [*sources, *shards]], options.workers)
            (work / "copy").mkdir()
            costs[name] = costs[name].then(run(["cp", *map(str, shards), str(work / "copy")]))
            clear(work / "copy")
        if not options.no_mergekit:
            warm(sources)
            costs["mergekit-moe, sha256sum"] = run_mergekit(work, herd)
        rounds.append(costs)
    size = sum(part.size_bytes for part in plan.released.parts)
    print(
        f"{options.layers} layers, 4 experts, {size / GB:.2f} GB of output, {options.workers} jobs at once\n"
    )
    print(f"{'':28}{'s':>8}{'ratio':>8}{'CPU s':>8}{'MB':>8}")
    fastest = {
        name: min((costs[name] for costs in rounds), key=lambda cost: cost.seconds) for name in rounds[0]
    }
    for name, cost in fastest.items():
        ratio = cost.seconds / fastest[YARDSTICK].seconds
        print(f"{name:28}{cost.seconds:8.1f}{ratio:8.2f}{cost.cpu_seconds:8.1f}{cost.peak_bytes / MB:8.0f}")
    if not options.no_prompt:
        another_prompt(work, herd, plan)
    if not options.no_scaling:
        scaling(work, options)


def run_mergekit(work: Path, herd: list[str]) -> Cost:
    """Run mergekit-moe, and `sha256sum` of what it wrote."""
    try:
        command, environment = MERGEKIT.find()
    except StepError as error:
        raise SystemExit(f"{error}\nOr skip it with --no-mergekit.") from error
    config = {
        "base_model": str(work / "base"),
        "gate_mode": "random",
        "dtype": "bfloat16",
        "experts": [{"source_model": str(work / model)} for model in herd],
    }
    (work / "moe.yml").write_text(yaml.safe_dump(config))
    merging = run([*command, str(work / "moe.yml"), str(work / "theirs")], environment)
    files = sorted(map(str, (work / "theirs").glob("*.safetensors")))
    hashing = run(["sha256sum", *files])
    clear(work / "theirs")
    return merging.then(hashing)


def another_prompt(work: Path, herd: list[str], plan: Plan) -> None:
    """Print what is rebuilt when prompts change, with routers from prompts: the first time, then with states that are kept."""
    changes = {
        "routers from prompts": {},
        "another prompt": {"negative_prompts": ["w9"]},
        "the same prompts, another gate": {"gate": "hidden_avg"},
    }
    print()
    for number, (change, words) in enumerate(changes.items()):
        path = write_recipe(work, herd, f"prompts-{number}", gate="hidden")
        content = yaml.safe_load(path.read_text())
        mixture = content["models"]["mixture"]["moe"]
        (mixture if "gate" in words else mixture["experts"][1]).update(words)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        changed = plans.load(path, plan.layout.root)
        assemble(changed, changed.nodes["base"])
        parts = mixture_parts(changed)
        cost = run_parts(changed, parts, 1)
        written = sum(part.size_bytes for part in parts)
        labels = ", ".join(part.label for part in parts)
        print(
            f"{change}: {labels} built, {written:,} bytes, {cost.seconds:.1f} s in {cost.peak_bytes / MB:.0f} MB"
        )


def scaling(work: Path, options: argparse.Namespace) -> None:
    """Print seconds by layers and experts, for smaller mixtures."""
    print(f"\n{'layers':>8}{'experts':>8}{'GB':>8}{'s':>8}{'s/GB':>8}")
    for layers, experts in ((1, 2), (2, 2), (4, 2), (1, 4), (1, 8)):
        folder = work / f"scaling-{layers}-{experts}"
        for seed, model in enumerate(("base", "one")):
            write_source(folder / model, buttercup.Widths(layers=layers), seed)
        recipe = write_recipe(folder, ["base", "one"] * (experts // 2), "recipe")
        plan = plans.load(recipe, folder / "results")
        run_parts(plan, source_parts(plan), options.workers)
        best = min(timed(plan, options.workers) for _ in range(options.rounds))
        size = sum(part.size_bytes for part in plan.released.parts) / GB
        print(f"{layers:8}{experts:8}{size:8.2f}{best:8.1f}{best / size:8.2f}", flush=True)
        clear(folder)


def timed(plan: Plan, workers: int) -> float:
    """Return the seconds that the mixture takes."""
    for part in plan.released.parts:
        plan.layout.shard(part).unlink(missing_ok=True)
    os.sync()
    return run_parts(plan, mixture_parts(plan), workers).seconds


if __name__ == "__main__":
    main()
