"""``herdbook plan``: the models and jobs of a build, and what they need."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.humanize import duration, integer, plural, size
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan

NAME_WIDTH = 37  # of the first column, so that a terminal of 80 columns wraps no number; longer names have a line of their own


@click.command(
    cls=repository.Command,
    epilog=options.examples("herdbook plan", "herdbook plan recipes/mine.yaml --elsewhere --gpu-memory 80"),
)
@options.recipe_or_argument
@options.results
@options.gpu_memory
@click.option(
    "--elsewhere", is_flag=True, help="Plan for another machine: do not check disk and software of this one."
)
def command(recipe: Path, results: Path, gpu_memory: int | None, *, elsewhere: bool) -> None:
    """Show the models and jobs of a build, and what they need.

    Lists the jobs of each rule, with what each is allowed: disk, memory, and time
    with one thread. It mostly takes less. A recipe that cannot be built is refused, with
    the reasons. Nothing is downloaded.
    """
    from herdbook import needs
    from herdbook import plan as plans
    from herdbook.plan.beside import missing_beside
    from herdbook.plan.jobs import jobs

    plan = plans.load(recipe, results)
    show(plan)
    if not elsewhere:
        unmade = [job for job in jobs(plan) if not all(map(Path.exists, job.outputs))]
        lost = dict.fromkeys(line for job in unmade for line in missing_beside(plan, job))
        for line in (
            *lost,
            *needs.missing_software(unmade),
        ):  # the jobs may still run elsewhere, or with conda
            say(f"warning: on this machine: {line}", file=sys.stderr)
        needs.check_disk(plan)
    needs.check_gpu(plan, gpu_memory)


def show(plan: Plan) -> None:
    """Print the models and jobs of a plan, what they need, and its warnings."""
    say(*_models(plan), *_jobs(plan), *_totals(plan))
    for warning in plan.warnings:
        say(f"warning: {warning}", file=sys.stderr)
    for note in _notes(plan):
        say(f"note: {note}", file=sys.stderr)


def _notes(plan: Plan) -> Iterator[str]:
    """Yield what need not be wrong: licenses that publishing refuses, routers that choose nothing, other recipes of the same name."""
    from herdbook.plan.licensing import unknown_licenses
    from herdbook.plan.namesakes import namesakes
    from herdbook.recipe import Moe

    for problem in unknown_licenses(plan.recipe, plan.lock):
        yield f"the release can be built, and `herdbook publish` will refuse it: {problem}"
    for name, model in plan.recipe.models.items():
        if name in plan.nodes and isinstance(model, Moe):
            count = len(model.moe.experts)
            if 1 < count <= model.moe.experts_per_token:
                yield (
                    f"models.{name}.moe: each token goes to all {count} experts, so the routers only weight them; to have them "
                    "choose, set `experts_per_token` lower"
                )
    for path in namesakes(plan):
        yield (
            f"release.name: {path} has the name {plan.recipe.release.name}, too, so the release of one would take the place of the "
            "other's in the results"
        )


def _models(plan: Plan) -> Iterator[str]:
    """Yield a line for each model: how it is made and of what, its parameters and its size."""
    yield f"{plural(len(plan.nodes), 'model'):{NAME_WIDTH + 2}}{'parameters':>19}{'size':>11}"
    for node in plan.nodes.values():
        made_from = f" <- {', '.join(node.parents)}" if node.parents else ""
        yield from _row(f"  {node.name}", f"{integer(node.parameters):>19}{size(node.size_bytes):>11}", "")
        yield f"    {node.operation}{made_from}"


def _jobs(plan: Plan) -> Iterator[str]:
    """Yield a line for each rule, then one for each of its jobs: the disk, memory and time that it may take at most."""
    from herdbook import needs
    from herdbook.plan.jobs import jobs

    planned = jobs(plan)
    rules = list(dict.fromkeys(job.rule for job in planned))
    yield f"{plural(len(planned), 'job'):{NAME_WIDTH + 2}}{'disk':>11}{'memory':>11}{'time limit':>15}"
    for rule, group in groupby(sorted(planned, key=lambda job: rules.index(job.rule)), lambda job: job.rule):
        of_rule = list(group)
        yield f"  {rule}: {plural(len(of_rule), 'job')}"
        for job in of_rule:
            yield from _row(
                f"    {job.id or job.rule}",
                f"{size(needs.disk_bytes(plan, job.subject)):>11}{size(needs.memory_bytes(plan, job.subject)):>11}",
                f"{duration(needs.seconds(plan, job.subject)):>15}",
            )


def _row(name: str, *numbers: str) -> Iterator[str]:
    """Yield a row of a table; a name that is too long for its column has a line of its own."""
    if len(name) > NAME_WIDTH + 1:
        yield name
        name = ""
    yield f"{name:{NAME_WIDTH + 2}}{''.join(numbers)}"


def _totals(plan: Plan) -> Iterator[str]:
    """Yield what the build as a whole takes: time, memory, downloads, disk."""
    from herdbook import needs
    from herdbook.plan.jobs import jobs

    planned = jobs(plan)
    together = duration(sum(needs.seconds(plan, job.subject) for job in planned))
    peak = size(max(needs.memory_bytes(plan, job.subject) for job in planned))
    yield f"time limits of all jobs together: {together}; peak memory of a job: {peak}"
    yield (
        f"to fetch: {size(needs.fetch_bytes(plan))}; large files to write: {size(needs.write_bytes(plan))}, "
        f"{size(needs.missing_bytes(plan))} of it missing"
    )
