"""The steps of a build: a command for each rule, which runs one job of the plan."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from herdbook.cli import completion, options, repository
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from herdbook.plan import Plan
    from herdbook.plan.job import Job


@dataclass(frozen=True)
class Step:
    """A step on the command line.

    Args:
        about: Its description, a sentence.
        key: Whether its rule has several jobs, so that the command needs a job's key.
        options: Its options about the machine.
    """

    about: str
    key: bool = True
    options: tuple[Callable[..., Callable[..., None]], ...] = ()


GPU = (options.threads, options.device, options.gpu_memory)
STEPS = {
    "fetch": Step("Fetch a shard of a source model, and check its digest.", options=(options.threads,)),
    "search": Step("Choose the matrices and ranks of a lasered model, by trial.", options=GPU),
    "laser": Step("Make a shard of a lasered model.", options=GPU),
    "adapter": Step("Make a shard of a model with an adapter folded in.", options=(options.threads,)),
    "merge": Step("Make a shard of a dense merge.", options=(options.threads,)),
    "moe": Step("Make a shard of a Mixture of Experts.", options=(options.threads,)),
    "compress": Step(
        "Make a shard of a model in a format for GPU servers or Macs.", options=(options.threads,)
    ),
    "files": Step("Write a source model's configuration and tokenizer to its folder."),
    "assemble": Step("Make a model's folder for transformers."),
    "routing": Step("Report which experts the released mixture's routers choose.", key=False, options=GPU),
    "data": Step("Fetch the data sets of evaluations, and count their documents.", key=False),
    "evaluate": Step("Measure a model or a quantized file.", options=GPU),
    "convert": Step("Make the header of the GGUF files: settings and vocabulary.", key=False),
    "imatrix": Step("Make the released model's importance matrix.", key=False, options=(options.threads,)),
    "quantize": Step("Make a quantized file from the released weights.", options=(options.threads,)),
    "reference": Step(
        "Keep what the released model predicts, for the losses of its files.",
        key=False,
        options=(options.threads,),
    ),
    "loss": Step("Measure the loss of a quantized file, token by token.", options=(options.threads,)),
    "card": Step("Render the model card, or describe any model by its files.", key=False),
    "release": Step("Assemble the release, with provenance and checksums.", key=False),
}
CARD = "card"  # which describes other people's models, too
DOCUMENTS = (CARD, "release")
ABOUT_MODEL = (
    "MODEL is a folder, or owner/name[@revision] on the Hub: its card is printed, and no recipe is read. Without it, the card of the "
    "recipe's release is rendered."
)
ABOUT_KEYS = (
    "KEY is the job's key, its first digits, or its name: `herdbook explain all` lists them. "
    "The files that it reads must exist, or be in the cache; Snakemake makes them in order."
)


def words(job: Job, threads: int) -> list[str]:
    """Return the arguments with which `herdbook` does a job of a plan."""
    step = STEPS[job.rule]
    key = [job.key] if step.key else []
    return [job.rule, *key, *(["--threads", str(threads)] if options.threads in step.options else [])]


def command(name: str) -> click.Command:
    """Return the command of a step."""
    step = STEPS[name]

    def run(
        recipe: Path | None,
        results: Path,
        key: str = "",
        threads: int = 1,
        device: str = "cpu",
        gpu_memory: int | None = None,
        model: str | None = None,
    ) -> None:
        if model is not None:
            _describe(model)
            return
        from herdbook import made, needs
        from herdbook import plan as plans
        from herdbook.cache.step import hand_on_spent, is_saved, save, take
        from herdbook.needs import spent
        from herdbook.plan.job import find
        from herdbook.plan.jobs import all_jobs, result_jobs
        from herdbook.steps import registry
        from herdbook.steps.machine import Machine

        begun = time.time()
        plan = plans.load(options.named(recipe), results)
        # The keys of the documents count much code, so a step that makes none of them does not compute them.
        jobs = all_jobs(plan) if name in DOCUMENTS else result_jobs(plan)
        job = find(jobs, name, key)
        if is_saved(plan, job):
            say("already in the cache")
            return
        machine = Machine(threads, device, gpu_memory)

        def make(one: Job) -> None:
            made.forget(plan.layout, one)
            registry.run(plan, one, machine)
            made.note(plan.layout, one)

        take(plan, job, make)
        made.check(plan.layout, jobs, job.inputs)
        make(job)
        save(plan, job)
        _report(plan, job, threads, time.time() - begun)
        if name not in DOCUMENTS:
            spent.note(plan, job, begun, needs.gpus(plan, job.subject, gpu_memory) if device != "cpu" else 0)
            hand_on_spent(plan, job)

    decorated: Callable[..., None] = run
    for option in (*reversed(step.options), options.results, options.recipe_if_needed):
        decorated = option(decorated)
    if step.key:
        decorated = click.argument("key", shell_complete=completion.jobs)(decorated)
    if name == CARD:
        decorated = click.argument("model", required=False, type=options.PLACE)(decorated)
    return click.command(
        name,
        cls=repository.Command,
        help="\n\n".join(
            [step.about, *([ABOUT_KEYS] if step.key else []), *([ABOUT_MODEL] if name == CARD else [])]
        ),
        epilog=options.examples("herdbook card", "herdbook card owner/name") if name == CARD else None,
        short_help=step.about,
    )(decorated)


def _describe(model: str) -> None:
    """Print a card of any checkpoint."""
    from herdbook.audit.description import describe
    from herdbook.release.subject import open_subject

    say(*describe(open_subject(model)).rstrip("\n").split("\n"))


def _report(plan: Plan, job: Job, threads: int, seconds: float) -> None:
    """Print what a job used of what was planned for it, for its log."""
    from herdbook import humanize, needs
    from herdbook.needs.used import peak_bytes

    if (used := peak_bytes()) is not None:
        planned = needs.memory_bytes(plan, job.subject, threads)
        say(f"memory: {humanize.size(used)} used, {humanize.size(planned)} planned")
    limit = humanize.duration(needs.seconds(plan, job.subject, threads))
    say(f"time: {humanize.duration(seconds)} used, {limit} planned")
