"""Measuring: `herdbook evaluate` and the command `lm_eval` on the same model and tasks, in one run.

Printed are the numbers of both, and whether they are equal: values and standard errors to six digits, as Herdbook stores
them, and the results of each document to nine, which distinguish any two numbers of single precision. Then the time of both
by phase: start-up (the interpreter, imports, the model), data (tasks, documents, requests), the model (all requests), and the
rest. Each command runs in a process of its own, alternately, and of each the fastest run counts; seconds of processor time,
which other programs on the machine disturb less, are printed beside.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.comparison.samples import label, of_results, unpack
from herdbook.lock import path_for, write
from herdbook.lock.pin import pin
from herdbook.plan.jobs import result_jobs
from herdbook.steps import registry

ROOT = Path(__file__).parents[1]
PHASES = ("start-up", "data", "model", "rest")
# Runs a command, and writes when each phase of lm-eval begins and ends.
TIMED = """
import json, os, sys, time

begun, calls, loading = float(os.environ["BEGUN"]), [], []
import lm_eval.evaluator as evaluator
from lm_eval.tasks import TaskManager

own, load, make = evaluator.evaluate, TaskManager.load, TaskManager.__init__

def timed(function, spans):
    def call(*arguments, **options):
        start = time.time()
        try:
            return function(*arguments, **options)
        finally:
            spans.append((start, time.time()))
    return call

def evaluate(lm, *arguments, **options):
    entered = time.time()
    for name in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(lm, name, timed(getattr(lm, name), calls))
    try:
        return own(lm, *arguments, **options)
    finally:
        data = sum(end - start for start, end in loading)
        times = {
            "start-up": entered - begun - data,
            "data": data + calls[0][0] - entered,
            "model": sum(end - start for start, end in calls),
        }
        with open(os.environ["TIMES"], "w") as file:
            json.dump(times, file)

evaluator.evaluate, TaskManager.load = evaluate, timed(load, loading)
TaskManager.__init__ = timed(make, loading)
sys.argv = json.loads(os.environ["COMMAND"])
if sys.argv[0] == "lm_eval":
    from lm_eval.__main__ import cli_evaluate
    cli_evaluate()
else:
    from herdbook.cli.main import main
    sys.exit(main(sys.argv[1:]))
"""


def run(command: list[str], folder: Path, log: Path) -> dict[str, float]:
    """Run a command; return its seconds by phase, in all, and of the processor."""
    times = folder / "times.json"
    environment = {
        **os.environ,
        "COMMAND": json.dumps(command),
        "TIMES": str(times),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
        "TOKENIZERS_PARALLELISM": "false",
        "BEGUN": str(time.time()),
    }
    begun = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", TIMED], env=environment, cwd=folder, stdout=output, stderr=output
        )
        _, status, used = os.wait4(process.pid, 0)
    total = time.perf_counter() - begun
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    found: dict[str, float] = json.loads(times.read_text(encoding="utf-8"))
    found["rest"] = total - sum(found.values())
    return {**found, "all": total, "processor": used.ru_utime + used.ru_stime}


def write_tasks(names: list[str], folder: Path) -> list[str]:
    """Copy tasks and their data into a folder, and into one below it as lm_eval finds them; return their names."""
    (folder / "lm_eval").mkdir(parents=True)
    written = []
    for name in names:
        path = Path(name).resolve()
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        kwargs = task["dataset_kwargs"]
        copies = {}
        for split, file in kwargs["data_files"].items():
            copies[split] = f"{path.stem}-{Path(file).name}"
            shutil.copyfile(path.parent / file, folder / copies[split])
        for place, files in (
            (folder, copies),
            (folder / "lm_eval", {split: str(folder / file) for split, file in copies.items()}),
        ):
            kwargs["data_files"] = files
            (place / path.name).write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
        written.append(task["task"])
    return written


def make_plan(options: argparse.Namespace, folder: Path) -> plans.Plan:
    """Return a plan that measures a model in a folder; everything before that is made."""
    (folder / "model").symlink_to(options.model.resolve())
    section = {
        "tasks": [f"tasks/{Path(task).name}" for task in options.tasks],
        "models": ["model"],
        "batch_size": options.batch_size,
        "dtype": options.dtype,
        **({"limit": options.limit} if options.limit else {}),
    }
    recipe = folder / "recipe.yaml"
    content = {
        "models": {"model": {"folder": "model"}},
        "release": {"model": "model", "name": "Model", "license": "apache-2.0"},
        "evaluate": section,
    }
    recipe.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    write(pin(recipes.load(recipe), recipe, lambda _: None), path_for(recipe))
    plan = plans.load(recipe, folder / "results")
    for job in result_jobs(plan):
        if job.rule != "evaluate":
            registry.run(plan, job)
    return plan


def differences(plan: plans.Plan, results: Path) -> tuple[list[str], int]:
    """Return what differs between both commands' results, a line each, and how many numbers are equal."""
    [item] = plan.evaluations
    ours = json.loads(plan.layout.evaluation(item).read_text(encoding="utf-8"))
    samples = unpack(plan.layout.samples(item).read_bytes(), ours["samples"]["sha256"])
    [reported] = results.rglob("results_*.json")
    theirs = json.loads(reported.read_text(encoding="utf-8"))
    wrong, equal = [], 0

    def compare(what: str, stated: Any, found: Any) -> None:
        nonlocal equal
        if stated == found:
            equal += 1
        else:
            wrong.append(f"{what}: {stated} and {found}")

    for name, task in ours["tasks"].items():
        for key, value in theirs["results"][name].items():
            metric, _, filter_name = key.partition(",")
            if not filter_name or metric.endswith("_stderr"):
                continue
            score = task["metrics"][label(metric, filter_name)]
            compare(f"{name}: {key}", score["value"], float(f"{value:.6g}"))
            error = theirs["results"][name][f"{metric}_stderr,{filter_name}"]
            if error != "N/A":
                compare(f"{name}: error of {key}", score["stderr"], float(f"{error:.6g}"))
        compare(f"{name}: documents", task["documents"], theirs["n-samples"][name]["effective"])
        [logged] = results.rglob(f"samples_{name}_*.jsonl")
        lines = [json.loads(line) for line in logged.read_text(encoding="utf-8").splitlines()]
        own = {sample.document: sample for sample in samples[name]}
        for sample in of_results(name, lines, task["metrics"]):
            values = own[sample.document].values
            for metric, value in sample.values.items():
                parts = value if isinstance(value, list) else [value]
                stated = values[metric] if isinstance(value, list) else [values[metric]]
                for one, other in zip(stated, parts, strict=True):
                    compare(f"{name}: document {sample.document}: {metric}", float(one), float(other))
    return wrong, equal


def main() -> None:
    """Compare both commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model's folder")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[str(ROOT / f"config/tasks/{name}.yaml") for name in ("python", "prose", "general")],
    )
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        names = write_tasks(options.tasks, folder / "tasks")
        plan = make_plan(options, folder)
        [item] = plan.evaluations
        runs: dict[str, list[dict[str, float]]] = {"herdbook evaluate": [], "lm_eval": []}
        for number in range(options.runs):
            results = folder / f"lm_eval-{number}"
            limit = ["--limit", str(options.limit)] if options.limit else []
            commands = {
                "herdbook evaluate": [
                    *("herdbook", "evaluate", item.key, "--recipe", str(plan.recipe_path)),
                    *("--results", str(plan.layout.root), "--threads", str(options.threads)),
                ],
                "lm_eval": [
                    *("lm_eval", "run", "--model", "hf", "--device", "cpu"),
                    *("--model_args", f"pretrained={plan.layout.folder(item.node)},dtype={options.dtype}"),
                    *("--include_path", str(folder / "tasks/lm_eval"), "--tasks", ",".join(names), *limit),
                    *(
                        "--batch_size",
                        str(options.batch_size),
                        "--log_samples",
                        "--output_path",
                        str(results),
                    ),
                ],
            }
            for command, arguments in commands.items():
                runs[command].append(run(arguments, folder, folder / "log.txt"))
            wrong, equal = differences(plan, results)
        print(f"{equal} numbers are equal, {len(wrong)} differ")
        for line in wrong[:20]:
            print(f"  {line}")
        print(f"\n| | {' | '.join(PHASES)} | all | processor |")
        print(f"| --- |{' ---: |' * (len(PHASES) + 2)}")
        for command, found in runs.items():
            best = min(found, key=lambda times: times["all"])
            print(
                f"| {command} | {' | '.join(f'{best[phase]:.1f} s' for phase in (*PHASES, 'all', 'processor'))} |"
            )


if __name__ == "__main__":
    main()
