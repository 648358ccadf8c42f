"""Give the miniature herd routers of every gate, and print the effect of each on the loss and the choice of experts.

Only the routers differ, so the mixture that `snakemake` built is read, and its routers are replaced in memory. The default
was chosen on validation text; test text shows whether the choice generalizes.
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
from herdbook.inference.forward import LayerwiseModel
from herdbook.inference.mixture import LayerwiseMixture
from herdbook.inference.tokenizer import load_tokenizer
from herdbook.progress import track
from herdbook.steps.laser.guard import paired
from herdbook.steps.moe.random_gate import random_rows
from herdbook.steps.moe.router import router_rows
from herdbook.steps.routing.measure import count, effective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan

TEXTS = Path(__file__).parents[1] / "config" / "miniature" / "text"
KINDS = ("python", "prose", "general")
SPECIALIST = {"python": 1, "prose": 3}  # number of the expert that was tuned on a kind of text, from 0
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
class Measured:
    """The measurements of a gate.

    Args:
        losses: Each window's loss in nats per token.
        shares: By kind of text, each expert's share of the choices, averaged over layers.
        effective: By kind of text, the effective number of experts.
    """

    losses: list[float]
    shares: dict[str, list[float]]
    effective: dict[str, float]


def windows(folder: Path, split: str) -> dict[str, list[list[int]]]:
    """Return windows of held-out text by kind, from the start of its documents in turn."""
    tokenizer = load_tokenizer(folder)
    by_kind = {}
    for kind in KINDS:
        lines = (TEXTS / kind / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        documents = [tokenizer(json.loads(line)["text"], verbose=False)["input_ids"] for line in lines]
        by_kind[kind] = [
            ids[start : start + TOKENS]
            for start in range(0, max(map(len, documents)) - TOKENS + 1, TOKENS)
            for ids in documents
            if start + TOKENS <= len(ids)
        ][:WINDOWS]
    return by_kind


def routers(plan: Plan, gate: str) -> list[torch.Tensor]:
    """Return the miniature's routers by a gate, rounded as in the build."""
    moe: Any = plan.released.recipe.moe  # type: ignore[attr-defined]
    layers, hidden = (plan.released.config[key] for key in ("num_hidden_layers", "hidden_size"))
    prompts = [(expert.prompts, expert.negative_prompts) for expert in moe.experts]
    rows: Iterator[torch.Tensor]
    if gate == "uniform_random":
        shape = (len(prompts), hidden)
        rows = (torch.from_numpy(random_rows(gate, f"layer {layer}", shape, 0)) for layer in range(layers))
    else:
        rows = router_rows(gate, plan.layout.folder(plan.nodes[moe.base]), prompts, layers)
    return [router.to(torch.bfloat16) for router in rows]


def run(plan: Plan, gate: str, texts: dict[str, list[list[int]]], threads: int) -> Measured:
    """Run held-out text through the mixture with the routers of a gate."""
    model = LayerwiseMixture(plan.layout.folder(plan.released), threads, routers(plan, gate))
    groups = [kind for kind in texts for _ in texts[kind]]
    sequences = [ids for kind in texts for ids in texts[kind]]
    shares: dict[str, list[list[float]]] = {kind: [] for kind in texts}
    streams: list[torch.Tensor] = []
    for choices, outputs in model.watch(sequences):
        streams = outputs
        for kind, counted in count(choices, groups).items():
            shares[kind].append(counted["share"])
    losses = model.losses(streams, sequences)
    numbers = {kind: sum(map(effective, rows)) / len(rows) for kind, rows in shares.items()}
    means = {
        kind: [sum(column) / len(rows) for column in zip(*rows, strict=True)] for kind, rows in shares.items()
    }
    return Measured(losses, means, numbers)


def dense(plan: Plan, name: str, texts: dict[str, list[list[int]]], threads: int) -> list[float]:
    """Return each window's loss with one of the models that the mixture is made from."""
    model = LayerwiseModel(plan.layout.folder(plan.nodes[name]), threads=threads)
    sequences = [ids for kind in texts for ids in texts[kind]]
    streams = model.embed(sequences)
    for number in range(model.layers):
        with model.layer(number) as module:
            streams = model.run(module, streams)
    return model.losses(streams, sequences)


def table(plan: Plan, split: str, gates: list[str], threads: int) -> Iterator[str]:
    """Yield the lines of the table of one split."""
    texts = windows(plan.layout.folder(plan.released), split)
    windows_count, spans = 0, {}
    for kind in KINDS:
        spans[kind] = slice(windows_count, windows_count + len(texts[kind]))
        windows_count += len(texts[kind])
    total = sum(len(ids) for kind in texts for ids in texts[kind])
    yield f"{split} text, {windows_count} windows of {TOKENS} tokens ({total} in total), nats per token:\n"
    heads = [
        *(f"loss, {kind}" for kind in KINDS),
        f"loss, all, minus that of `{FIRST}`",
        "Python to expert 2",
        "prose to expert 4",
        "experts in use",
    ]
    yield f"| routers | {' | '.join(heads)} |\n| --- |{' ---: |' * len(heads)}"
    names = ["base-laser", "python-laser", "prose-laser"]
    with track(f"routers, {split}", len(names) + len(gates)) as advance:
        first: list[float] = []
        for gate in gates:
            measured = run(plan, gate, texts, threads)
            first = first or measured.losses
            effective_experts = sum(measured.effective.values()) / len(measured.effective)
            cells = [
                *_means(measured.losses, spans),
                _difference(first, measured.losses),
                *(f"{measured.shares[kind][expert]:.0%}" for kind, expert in SPECIALIST.items()),
                f"{effective_experts:.2f}",
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
    change = paired(before, after, 0.975)
    return f"{change.mean:+.4f} ± {change.upper - change.mean:.4f}"


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
    torch.set_num_threads(1)  # one thread per sequence
    for split in arguments.splits:
        for line in table(plan, split, arguments.gates, arguments.threads):
            print(line, flush=True)


if __name__ == "__main__":
    main()
