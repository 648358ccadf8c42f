"""A Mixture of Experts with layers as wide as Mistral-7B's: Herdbook, `cp` and mergekit-moe compared in one run.

The models are generated: random weights, as wide as Mistral-7B, with few layers. Then the same mixture is written three
times, each in processes of its own: `cp` of the finished weights (no digests), mergekit-moe and `sha256sum` of its files
(no digests of tensors), and Herdbook, with the SHA-256 of every file and tensor. Routers are random, so that only the
merging is measured. Printed: seconds, the ratio to `cp`, and the largest resident memory of a process. Then the cost of
another prompt, and the cost by number of layers and experts.
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


class Process:
    """A measured process: ``seconds``, ``peak_bytes`` of resident memory, and the exit ``status``."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        accepted: tuple[int, ...] = (0,),
    ) -> None:
        self.peak_bytes = 0
        started = time.perf_counter()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder
            )
            watching = threading.Thread(target=self._watch, args=(process.pid,))
            watching.start()
            self.status = process.wait()
            if self.status not in accepted:
                output.seek(0)
                raise SystemExit(f"{command} failed:\n{output.read().decode()[-2000:]}")
            self.seconds = time.perf_counter() - started
            watching.join()

    def _watch(self, pid: int) -> None:
        while True:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                return
            line = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
            if line is None:
                return
            self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) * 1024)
            time.sleep(0.01)


def run_parts(plan: Plan, parts: list[Part], workers: int) -> tuple[float, int]:
    """Make parts as Snakemake does, each by its own command; return seconds, and the largest peak memory in bytes."""
    environment = {**os.environ, "HERDBOOK_RECIPE": str(plan.recipe_path)}

    def make(part: Part) -> Process:
        command = [sys.executable, "-m", "herdbook", part.rule, part.key]
        return Process([*command, "--results", str(plan.layout.root)], environment)

    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        processes = list(pool.map(make, parts))
    return time.perf_counter() - started, max(process.peak_bytes for process in processes)


def fresh_plan(recipe: Path, results: Path, workers: int) -> tuple[Plan, float]:
    """Fetch a recipe's sources; return its plan, and the seconds that fetching took."""
    plan = plans.load(recipe, results)
    sources = [part for part in plan.parts.values() if part.rule == "fetch"]
    seconds, _ = run_parts(plan, sources, workers)
    return plan, seconds


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
    parser.add_argument("--no-scaling", action="store_true", help="skip the cost by layers and experts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        measure(Path(name), options)


def measure(work: Path, options: argparse.Namespace) -> None:
    """Print all tables."""
    herd = ["base", "one", "base", "two"]
    for seed, model in enumerate(dict.fromkeys(herd)):
        write_source(work / model, buttercup.Widths(layers=options.layers), seed)
    recipe = write_recipe(work, herd, "recipe")
    plan, fetching = fresh_plan(recipe, work / "results", options.workers)
    sources = [work / model / "model.safetensors" for model in dict.fromkeys(herd)]
    size = sum(part.size_bytes for part in plan.released.parts)
    rows: dict[str, list[tuple[float, int]]] = {}
    for _ in range(options.rounds):
        for part in plan.released.parts:
            plan.layout.shard(part).unlink(missing_ok=True)
        os.sync()
        warm(sources)
        rows.setdefault("ours, all digests", []).append(run_parts(plan, mixture_parts(plan), options.workers))
        shards = [plan.layout.shard(part) for part in plan.released.parts]
        warm(shards)
        os.sync()
        (work / "copy").mkdir()
        copying = Process(["cp", *map(str, shards), str(work / "copy")])
        rows.setdefault("cp", []).append((copying.seconds, copying.peak_bytes))
        clear(work / "copy")
        if not options.no_mergekit:
            warm(sources)
            rows.setdefault("mergekit-moe, sha256sum", []).append(run_mergekit(work, herd))
    print(
        f"{options.layers} layers, 4 experts, {size / GB:.2f} GB of output, {options.workers} jobs at once\n"
    )
    print(f"{'':28}{'s':>8}{'of cp':>8}{'MB':>8}")
    fastest = {name: (min(s for s, _ in runs), max(m for _, m in runs)) for name, runs in rows.items()}
    for name, (seconds, peak) in sorted(fastest.items()):
        print(f"{name:28}{seconds:8.1f}{seconds / fastest['cp'][0]:8.2f}{peak / MB:8.0f}")
    print(f"\nfetching the sources before (with digests and a check for finite values): {fetching:.1f} s")
    another_prompt(work, herd, plan)
    if not options.no_scaling:
        scaling(work, options)


def run_mergekit(work: Path, herd: list[str]) -> tuple[float, int]:
    """Run mergekit-moe and `sha256sum`; return seconds, and the larger peak memory in bytes."""
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
    merging = Process([*command, str(work / "moe.yml"), str(work / "theirs")], environment)
    files = sorted(map(str, (work / "theirs").glob("*.safetensors")))
    hashing = Process(["sha256sum", *files])
    clear(work / "theirs")
    return merging.seconds + hashing.seconds, max(merging.peak_bytes, hashing.peak_bytes)


def another_prompt(work: Path, herd: list[str], plan: Plan) -> None:
    """Print what is rebuilt when a prompt changes, with routers from prompts."""
    for name, words in (("before", {}), ("after", {"negative_prompts": ["w9"]})):
        path = write_recipe(work, herd, name, gate="hidden")
        content = yaml.safe_load(path.read_text())
        content["models"]["mixture"]["moe"]["experts"][1] |= words
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        changed = plans.load(path, plan.layout.root)
        assemble(changed, changed.nodes["base"])
        parts = mixture_parts(changed)
        seconds, peak = run_parts(changed, parts, 1)
        written = sum(part.size_bytes for part in parts)
    total = sum(part.size_bytes for part in changed.released.parts)
    labels = ", ".join(part.label for part in parts)
    print(
        f"another prompt: {labels} rebuilt, {written:,} of {total:,} bytes, {seconds:.1f} s in {peak / MB:.0f} MB "
        "(the base's layers run once, in sequence)"
    )


def scaling(work: Path, options: argparse.Namespace) -> None:
    """Print seconds by layers and experts, for smaller mixtures."""
    print(f"\n{'layers':>8}{'experts':>8}{'GB':>8}{'s':>8}{'s/GB':>8}")
    for layers, experts in ((1, 2), (2, 2), (4, 2), (1, 4), (1, 8)):
        folder = work / f"scaling-{layers}-{experts}"
        for seed, model in enumerate(("base", "one")):
            write_source(folder / model, buttercup.Widths(layers=layers), seed)
        recipe = write_recipe(folder, ["base", "one"] * (experts // 2), "recipe")
        plan, _ = fresh_plan(recipe, folder / "results", options.workers)
        best = min(timed(plan, options.workers) for _ in range(options.rounds))
        size = sum(part.size_bytes for part in plan.released.parts) / GB
        print(f"{layers:8}{experts:8}{size:8.2f}{best:8.1f}{best / size:8.2f}", flush=True)
        clear(folder)


def timed(plan: Plan, workers: int) -> float:
    """Return the seconds that the mixture takes."""
    for part in plan.released.parts:
        plan.layout.shard(part).unlink(missing_ok=True)
    os.sync()
    return run_parts(plan, mixture_parts(plan), workers)[0]


if __name__ == "__main__":
    main()
