"""Give the miniature herd routers of every gate, and print what each does to the loss and to the choice of experts.

The experts stay what they are; only the routers differ, so the mixture that `snakemake` built is read, and its routers
are replaced in memory. The default was chosen by validation text; test text is there to see whether that holds.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from herdbook import plan as plans
from herdbook.inference.forward import LayerwiseModel, load_tokenizer
from herdbook.inference.mixture import LayerwiseMixture
from herdbook.progress import track
from herdbook.steps.laser.guard import paired
from herdbook.steps.moe.random_gate import random_rows
from herdbook.steps.moe.router import router_rows
from herdbook.steps.routing.measure import count, effective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan

HERE = Path(__file__).parent
KINDS = ("python", "prose", "general")
SPECIALIST = {"python": 1, "prose": 3}  # place of the expert that was tuned on a kind of text, from 0
GATES = (
    "hidden",
    "hidden_avg",
    "cheap_embed",
    "router_input",
    "router_input_avg",
    "centred",
    "ridge",
    "uniform_random",
)
TOKENS, WINDOWS = 128, 20
FIRST = "hidden"  # mergekit's default, with which the others are compared


@dataclass
class Found:
    """What a gate does: each window's loss, by kind of text the mean share of each expert over layers, and their number."""

    losses: list[float]
    shares: dict[str, list[float]]
    effective: dict[str, float]


def windows(folder: Path, split: str) -> dict[str, list[list[int]]]:
    """Return windows of held-out text by kind: from the start of its documents in turn."""
    tokenizer = load_tokenizer(folder)
    found = {}
    for kind in KINDS:
        lines = (HERE / "text" / kind / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        documents = [tokenizer(json.loads(line)["text"], verbose=False)["input_ids"] for line in lines]
        found[kind] = [
            ids[start : start + TOKENS]
            for start in range(0, max(map(len, documents)) - TOKENS + 1, TOKENS)
            for ids in documents
            if start + TOKENS <= len(ids)
        ][:WINDOWS]
    return found


def routers(plan: Plan, gate: str) -> list[torch.Tensor]:
    """Return the routers that a gate gives the miniature, as the build rounds them."""
    moe: Any = plan.released.recipe.moe  # type: ignore[attr-defined]
    layers, hidden = (plan.released.config[key] for key in ("num_hidden_layers", "hidden_size"))
    prompts = [(expert.prompts, expert.negative_prompts) for expert in moe.experts]
    rows: Iterator[torch.Tensor]
    if gate == "uniform_random":
        shape = (len(prompts), hidden)
        rows = (torch.from_numpy(random_rows(gate, f"layer {layer}", shape, 0)) for layer in range(layers))
    else:
        rows = router_rows(gate, plan.layout.folder(plan.nodes[moe.base]), prompts, layers)
    return [one.to(torch.bfloat16) for one in rows]


def run(plan: Plan, gate: str, texts: dict[str, list[list[int]]], threads: int) -> Found:
    """Run held-out text through the mixture with the routers of a gate."""
    model = LayerwiseMixture(plan.layout.folder(plan.released), threads, routers(plan, gate))
    groups = [kind for kind in texts for _ in texts[kind]]
    sequences = [ids for kind in texts for ids in texts[kind]]
    shares: dict[str, list[list[float]]] = {kind: [] for kind in texts}
    streams: list[torch.Tensor] = []
    for seen, left in model.watch(sequences):
        streams = left
        for kind, chosen in count(seen, groups).items():
            shares[kind].append(chosen["share"])
    losses = [float(loss) for loss in model.losses(streams, sequences)]
    numbers = {kind: sum(map(effective, rows)) / len(rows) for kind, rows in shares.items()}
    means = {
        kind: [sum(column) / len(rows) for column in zip(*rows, strict=True)] for kind, rows in shares.items()
    }
    return Found(losses, means, numbers)


def dense(plan: Plan, name: str, texts: dict[str, list[list[int]]], threads: int) -> list[float]:
    """Return each window's loss of one of the models that the mixture is made of."""
    model = LayerwiseModel(plan.layout.folder(plan.nodes[name]), threads=threads)
    sequences = [ids for kind in texts for ids in texts[kind]]
    streams = model.embed(sequences)
    for number in range(model.layers):
        with model.layer(number) as module:
            streams = model.run(module, streams)
    return [float(loss) for loss in model.losses(streams, sequences)]


def table(plan: Plan, split: str, gates: list[str], threads: int) -> Iterator[str]:
    """Yield the lines of a table on one split."""
    texts = windows(plan.layout.folder(plan.released), split)
    place, spans = 0, {}
    for kind in KINDS:
        spans[kind] = slice(place, place + len(texts[kind]))
        place += len(texts[kind])
    total = sum(len(ids) for kind in texts for ids in texts[kind])
    yield f"{split} text, {place} windows of {TOKENS} tokens ({total} in all), nats a token:\n"
    heads = [
        *(f"loss, {kind}" for kind in KINDS),
        f"loss, all, less that of `{FIRST}`",
        "Python to expert 2",
        "prose to expert 4",
        "experts in use",
    ]
    yield f"| routers | {' | '.join(heads)} |\n| --- |{' ---: |' * len(heads)}"
    names = ["base-laser", "python-laser", "prose-laser"]
    with track(f"routers, {split}", len(names) + len(gates)) as advance:
        first: list[float] = []
        for gate in gates:
            found = run(plan, gate, texts, threads)
            first = first or found.losses
            uses = sum(found.effective.values()) / len(found.effective)
            cells = [
                *_means(found.losses, spans),
                _difference(first, found.losses),
                *(f"{found.shares[kind][expert]:.0%}" for kind, expert in SPECIALIST.items()),
                f"{uses:.2f}",
            ]
            yield f"| `{gate}` | {' | '.join(cells)} |"
            advance()
        for name in names:
            losses = dense(plan, name, texts, threads)
            yield f"| none: {name} alone | {' | '.join([*_means(losses, spans), _difference(first, losses), '', '', ''])} |"
            advance()
    yield ""


def _means(losses: list[float], spans: dict[str, slice]) -> list[str]:
    return [f"{sum(losses[span]) / len(losses[span]):.4f}" for span in spans.values()]


def _difference(before: list[float], after: list[float]) -> str:
    if before == after:
        return "0"
    found = paired(before, after, 0.975)
    return f"{found.mean:+.4f} ± {found.upper - found.mean:.4f}"


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--recipe", type=Path, default=Path("config/miniature.yaml"), help="default: %(default)s"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument(
        "--gates", nargs="+", choices=GATES, default=list(GATES), metavar="GATE", help="default: all"
    )
    parser.add_argument("--splits", nargs="+", choices=["validation", "test"], default=["validation", "test"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: %(default)s")
    arguments = parser.parse_args()
    plan = plans.load(arguments.recipe, arguments.results)
    if not plan.layout.folder(plan.released).exists():
        parser.error(f"{plan.layout.folder(plan.released)} is missing; build it first: snakemake --cores all")
    torch.set_num_threads(1)  # one thread a sequence
    for split in arguments.splits:
        for line in table(plan, split, arguments.gates, arguments.threads):
            print(line, flush=True)


if __name__ == "__main__":
    main()
