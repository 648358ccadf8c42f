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

VERIFY = "verify"  # which reads a release as anybody does, and says what is wrong with it


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

    Also names files that were changed by hand since a job made them: what reads
    them is refused.

    TARGET is a file below the results, a model, a rule, a job from the list of
    `herdbook plan`, or "all", which is the default.
    """
    from herdbook import made
    from herdbook import plan as plans
    from herdbook.cache.step import available
    from herdbook.explain.verdict import Verdict
    from herdbook.signing.signer import configured_signer

    plan = plans.load(recipe, results)
    verdict = Verdict(plan, configured_signer(), available(plan, writes=False))
    told: set[Job] = set()
    selected = _find(target, verdict.jobs, results)
    paths = dict.fromkeys(path for job in selected for path in (*job.outputs, *job.inputs))
    edits = {one.path: one for one in made.edited(plan.layout, verdict.jobs, paths)}
    for job in selected:
        own = [edits[path] for path in job.outputs if path in edits]
        read = [edits[path] for path in job.inputs if path in edits and job.rule != VERIFY]
        states = [verdict.sentence(job)] if job in verdict.run or not (own or read) else []
        states += ["changed by hand"] * bool(own) + ["would be refused"] * bool(read)
        say(f"{job.name}: {', '.join(states)}")
        say(*(f"  {one.text}" for one in own), *(f"  reads {one.text}" for one in read))
        if job in verdict.run:
            for reason in verdict.reasons(job, told):
                say(f"  {reason}")
            told.add(job)
    if edits:
        say(made.advice(edits))


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
    if completion.is_recipe(path):
        raise RecipeError(
            f"{target}: is a recipe, and no target in one; name it with {repository.RECIPE_OPTION} {target}"
        )
    targets = sorted({name for job in jobs for name in (job.rule, *job.models, *job.labels) if name})
    hint = did_you_mean(target, targets) or f". Targets are {', '.join(targets)}, or a file"
    raise RecipeError(f"no target has the name {target!r}{hint}")


def _same(path: Path, output: Path) -> bool:
    return path.absolute() == output.absolute()


def _below(path: Path, folder: Path) -> bool:
    return folder.absolute() in path.absolute().parents
