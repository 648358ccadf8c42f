"""The routing step: the report on a mixture's routers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from herdbook.files import write_json
from herdbook.inference.mixture import LayerwiseMixture
from herdbook.inference.prompts import tokenize
from herdbook.inference.text import windows
from herdbook.progress import track
from herdbook.recipe import Moe
from herdbook.steps.routing.measure import DIGITS, count, mean
from herdbook.steps.routing.rows import look, verdict

if TYPE_CHECKING:
    from herdbook.plan import Plan, RoutingReport


def routing(plan: Plan, report: RoutingReport, threads: int = 1, device: str = "cpu") -> None:
    """Run texts and prompts through a mixture, and write a report on the choices of its routers.

    Args:
        plan: The plan; the mixture's folder must exist.
        report: The report.
        threads: How many sequences, or blocks of an expert's input, are processed at the same time; it does not affect the
            result.
        device: Where the mixture runs. The CPU's result is the reference; results of other devices name the device.

    Raises:
        LockError: If a text changed since it was locked.
        StepError: If a text is too short, or the model cannot read it.
        CheckpointError: If a tensor is missing or damaged.
    """
    torch.set_num_threads(
        1
    )  # one thread per sequence, so that the result does not depend on the number of threads
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
    text_count = len(sequences)
    for place, expert in enumerate(moe.experts, start=1):
        sequences += tokenize(folder, expert.prompts, chat_template=moe.chat_template)
        groups += [f"prompts of expert {place}"] * len(expert.prompts)
    layers: list[dict[str, Any]] = []
    routers: dict[int, torch.Tensor] = {}
    prompts: dict[str, list[list[float]]] = {group: [] for group in dict.fromkeys(groups[text_count:])}
    streams: list[torch.Tensor] = []
    with track(f"routing {report.id}", model.layers) as advance:
        for number in range(model.layers):
            routers[number] = model.router(number, stored=True)
        for seen, outputs in model.watch(sequences) if sequences else ():
            streams = outputs
            chosen = count(seen, groups)
            for group, shares in prompts.items():
                shares.append(chosen[group]["share"])
            layers.append({kind: chosen[kind] for kind in report.texts})
            advance()
    losses = model.losses(streams[:text_count], sequences[:text_count])
    texts = {}
    for name in report.texts:
        own = [index for index, group in enumerate(groups[:text_count]) if group == name]
        texts[name] = {
            "windows": len(own),
            "tokens": sum(len(sequences[index]) for index in own),
            "loss": round(sum(losses[index] for index in own) / len(own), DIGITS),
        }
    write_json(
        plan.layout.report(report),
        {
            **report.about,
            **({} if device == "cpu" else {"device": device.partition(":")[0]}),
            "texts": texts,
            "layers": layers,
            "prompts": {group: mean(shares) for group, shares in prompts.items()},
            "rows": [look(layer, router).describe() for layer, router in routers.items()],
            "verdict": verdict(routers),
        },
    )
