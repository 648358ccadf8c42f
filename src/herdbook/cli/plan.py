"""``herdbook plan``: the jobs, downloads, output and memory of a build."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.humanize import size

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan import Plan


@click.command(
    cls=repository.Command,
    epilog=options.examples(
        "herdbook plan", "herdbook plan config/buttercup.yaml --elsewhere --gpu-memory 80"
    ),
)
@options.recipe_or_argument
@options.results
@options.gpu_memory
@click.option("--elsewhere", is_flag=True, help="Plan for another machine: do not check the free disk space.")
def command(recipe: Path, results: Path, gpu_memory: float | None, *, elsewhere: bool) -> None:
    """Show the jobs, downloads, output and memory of a build.

    Lists models, and jobs with their keys, bytes and memory. A recipe that cannot
    be built is refused, with the reasons. Nothing is downloaded.
    """
    from herdbook import needs
    from herdbook import plan as plans

    plan = plans.load(recipe, results)
    _show(plan)
    if not elsewhere:
        needs.check_disk(plan)
    needs.check_gpu(plan, options.gpu_bytes(gpu_memory))


def _show(plan: Plan) -> None:
    """Print the graph, the shards, bytes to fetch and to write, and each job's memory."""
    from herdbook import needs

    for node in plan.nodes.values():
        made_from = f" <- {', '.join(node.parents)}" if node.parents else ""
        print(
            f"{node.name}{made_from}  [{node.operation}, {node.parameters / 1e6:.1f} M parameters, {size(node.size_bytes)}]"
        )
        if node.search:
            print(
                f"  search {node.search.id:37} {len(node.search.parameters['matrices']):5} matrices           memory {size(needs.memory_bytes(plan, node.search))}"
            )
        for part in node.parts:
            print(
                f"  {part.id:44} {len(part.tensors):5} tensors {size(part.size_bytes):>9}  memory {size(needs.memory_bytes(plan, part))}"
            )
    for item in plan.evaluations:
        print(f"evaluate {item.id:44} memory {size(needs.memory_bytes(plan, item))}")
    for quantized in plan.quantized:
        print(f"quantize {quantized.id:44} memory {size(needs.memory_bytes(plan, quantized))}")
    print(
        f"to fetch: {size(needs.fetch_bytes(plan))}; to write: {size(needs.write_bytes(plan))}, {size(needs.missing_bytes(plan))} of it missing"
    )
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
