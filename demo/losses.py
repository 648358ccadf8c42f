"""Make a ladder of quantized files of the miniature, measure the loss of each, and print the table; with --picture, draw it.

The miniature and the header of its GGUF files are those that `snakemake` built. The files are those that a recipe with these
methods and `loss` would make, in the same places.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import humanize
from herdbook import plan as plans
from herdbook.figures import FilePoint, draw_losses
from herdbook.plan.jobs import result_jobs
from herdbook.recipe.loss import Loss
from herdbook.recipe.quantize import Quantize
from herdbook.steps.machine import Machine
from herdbook.steps.registry import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan

RECIPE = Path(__file__).parents[1] / "config" / "miniature.yaml"
LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_L", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
TITLE = "The miniature: what its quantized files lose (mean KL divergence, nats per token)"
HEAD = """| file | size | bits per weight | mean KL divergence | median | 99 % | 99.9 % | perplexity ratio | same top token |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def measured(plan: Plan, threads: int) -> Iterator[tuple[str, dict]]:
    """Make and measure what is missing; yield each file's name in the table and its result."""
    for job in result_jobs(plan):
        wanted = job.rule in {"quantize", "reference", "loss"}
        if wanted and not all(path.exists() for path in job.outputs):
            run(plan, job, Machine(threads))
    for item in plan.losses:
        yield item.label, json.loads(plan.layout.loss(item).read_text(encoding="utf-8"))


def row(name: str, result: dict) -> str:
    """Return a row of the table."""
    total = result["total"]
    divergence, ratio, same = (total[key] for key in ("kl_divergence", "perplexity_ratio", "same_top"))
    cells = [
        name,
        humanize.size(result["file"]["size_bytes"]),
        f"{result['bits_per_weight']:.2f}",
        f"{divergence['value']:.4f} ± {divergence['stderr']:.4f}",
        *(f"{divergence[key]:.4f}" for key in ("median", "p99", "p99.9")),
        f"{ratio['value']:.4f} ± {ratio['stderr']:.4f}",
        f"{100 * same['value']:.1f} ± {100 * same['stderr']:.1f} %",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=LADDER)
    parser.add_argument(
        "--texts", nargs="+", default=["python", "prose", "general"], help="of the recipe's calibration"
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--picture", type=Path, help="an SVG to write")
    asked = parser.parse_args()
    plan = plans.load(RECIPE, asked.results)
    section = Quantize(methods=list(asked.methods), loss=Loss(texts=asked.texts))
    plan = replace(plan, recipe=plan.recipe.model_copy(update={"quantize": section}))
    results = dict(measured(plan, asked.threads))
    print(HEAD)
    for name, result in results.items():
        print(row(name, result))
    assert plan.reference is not None  # noqa: S101 - the section asks for it
    kept = json.loads(plan.layout.reference_record(plan.reference).read_text(encoding="utf-8"))
    control = kept["control"]["kl_divergence"]
    print(
        f"\n{kept['control']['tokens']} tokens. With shuffled experts, the model at full width has a mean KL divergence of "
        f"{control['value']:.2f} ± {control['stderr']:.2f}."
    )
    if asked.picture:
        points = [
            FilePoint(
                name,
                result["bits_per_weight"],
                result["total"]["kl_divergence"]["value"],
                result["total"]["kl_divergence"]["stderr"],
            )
            for name, result in results.items()
        ]
        asked.picture.parent.mkdir(parents=True, exist_ok=True)
        asked.picture.write_text(draw_losses(points, TITLE), encoding="utf-8")


if __name__ == "__main__":
    main()
