"""``herdbook explain``: whether a build would run a job, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from herdbook.cli import completion, options, repository
from herdbook.errors import RecipeError
from herdbook.humanize import did_you_mean
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.plan.job import Job


@click.command(
    cls=repository.Command,
    epilog=options.examples(
        "herdbook explain all",
        "herdbook explain westlake-laser",
        "herdbook explain results/Buttercup-4x7B/release/README.md",
    ),
)
@click.argument("target", default=completion.ALL, shell_complete=completion.targets)
@options.recipe
@options.results
def command(target: str, recipe: Path, results: Path) -> None:
    """Explain whether a build would run a job, and why.

    TARGET is a file below the results, a model, a rule, a job from the list of
    `herdbook plan`, or "all", which is the default.
    """
    from herdbook import plan as plans
    from herdbook.cache.step import available
    from herdbook.explain.verdict import Verdict
    from herdbook.signing.signer import configured_signer

    plan = plans.load(recipe, results)
    verdict = Verdict(plan, configured_signer(), available(plan, writes=False))
    told: set[Job] = set()
    for job in _find(target, verdict.jobs, results):
        say(f"{job.name}: {verdict.sentence(job)}")
        if job in verdict.run:
            for reason in verdict.reasons(job, told):
                say(f"  {reason}")
            told.add(job)


def _find(target: str, jobs: Sequence[Job], results: Path) -> list[Job]:
    """Return the jobs that a target selects. Raises RecipeError if it selects none."""
    if target == completion.ALL:
        return list(jobs)
    path = Path(target)
    makers = [job for job in jobs if any(_same(path, output) for output in job.outputs)]
    if makers:
        return makers
    if path.exists() and results.absolute() in path.absolute().parents:
        released = [job for job in jobs if job.rule == "release" and _below(path, job.outputs[0].parent)]
        if released:
            return released  # the release's weights are links, which no job declares as outputs
        raise RecipeError(
            f"{target}: no job of this recipe makes this file; it belongs to another recipe or an earlier key"
        )
    for selected in (
        [job for job in jobs if target in {job.rule, job.name}],
        [job for job in jobs if target in job.models],
        [
            job
            for job in jobs
            if job.id and any(name.startswith(target) for name in (job.id, *job.labels, job.key))
        ],
    ):
        if selected:
            return selected
    targets = sorted({name for job in jobs for name in (job.rule, *job.models, *job.labels) if name})
    hint = did_you_mean(target, targets) or f". Targets are {', '.join(targets)}, or a file"
    raise RecipeError(f"no target has the name {target!r}{hint}")


def _same(path: Path, output: Path) -> bool:
    return path.absolute() == output.absolute()


def _below(path: Path, folder: Path) -> bool:
    return folder.absolute() in path.absolute().parents
