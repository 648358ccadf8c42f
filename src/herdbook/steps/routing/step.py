"""The routing step: the report on a mixture's routers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from herdbook.files import write_json
from herdbook.inference.forward import tokenize
from herdbook.inference.mixture import LayerwiseMixture
from herdbook.inference.text import windows
from herdbook.progress import track
from herdbook.recipe import Moe
from herdbook.steps.routing.measure import DIGITS, count, mean
from herdbook.steps.routing.rows import look, verdict

if TYPE_CHECKING:
    from herdbook.plan import Plan, RoutingReport


def routing(plan: Plan, report: RoutingReport, threads: int = 1, device: str = "cpu") -> None:
    """Run texts and prompts through a mixture, and write what its routers chose.

    Args:
        plan: The plan; the mixture's folder is made.
        report: Which report.
        threads: How many sequences, or rows of an expert's input, pass at once; the results are the same bits.
        device: Where the mixture runs. The CPU's result is the reference; the report names any other.

    Raises:
        LockError: If a text changed since it was locked.
        StepError: If a text is too short, or the model cannot read it.
        CheckpointError: If a tensor is missing or damaged.
    """
    torch.set_num_threads(1)  # one thread a sequence: what comes out hangs on no number of threads
    folder = plan.layout.folder(report.node)
    model = LayerwiseMixture(folder, threads, device=device)
    assert isinstance(report.node.recipe, Moe)  # noqa: S101 - no other model has a report
    moe = report.node.recipe.moe
    groups: list[str] = []
    sequences: list[list[int]] = []
    for name in report.texts:
        drawn = windows(plan, name, folder, model.config, plan.recipe.calibration[name].windows)
        sequences += drawn
        groups += [name] * len(drawn)
    read = len(sequences)
    for place, expert in enumerate(moe.experts, start=1):
        sequences += tokenize(folder, expert.prompts, chat_template=moe.chat_template)
        groups += [f"prompts of expert {place}"] * len(expert.prompts)
    layers: list[dict[str, Any]] = []
    routers: dict[int, torch.Tensor] = {}
    prompts: dict[str, list[list[float]]] = {group: [] for group in dict.fromkeys(groups[read:])}
    streams: list[torch.Tensor] = []
    with track(f"routing {report.id}", model.layers) as advance:
        for number in range(model.layers):
            routers[number] = model.router(number, stored=True)
        for seen, left in model.watch(sequences) if sequences else ():
            streams = left
            chosen = count(seen, groups)
            for group, shares in prompts.items():
                shares.append(chosen[group]["share"])
            layers.append({kind: chosen[kind] for kind in report.texts})
            advance()
    losses = model.losses(streams[:read], sequences[:read])
    texts = {}
    for name in report.texts:
        own = [place for place, group in enumerate(groups[:read]) if group == name]
        texts[name] = {
            "windows": len(own),
            "tokens": sum(len(sequences[place]) for place in own),
            "loss": round(sum(losses[place] for place in own) / len(own), DIGITS),
        }
    write_json(
        plan.layout.report(report),
        {
            "operation": "routing",
            "key": report.key,
            "model": report.node.key,
            "code": report.code,
            **({} if device == "cpu" else {"device": device.partition(":")[0]}),
            "experts": [expert.model for expert in moe.experts],
            "experts_per_token": moe.experts_per_token,
            "texts": texts,
            "layers": layers,
            "prompts": {group: mean(shares) for group, shares in prompts.items()},
            "rows": [look(layer, router).describe() for layer, router in routers.items()],
            "verdict": verdict(routers),
        },
    )
