"""``herdbook attest``: the claims about a release, and signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from herdbook import settings
from herdbook.cli import options, repository
from herdbook.visible import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=repository.Command)
@options.recipe_if_needed
@options.results
@click.option(
    "--key",
    metavar="FILE",
    envvar=settings.SIGNING_KEY.variable,
    show_envvar=True,
    help=f"Private key (PEM) to sign with; without one, nothing is signed ({repository.FILE}: signing_key).",
)
@click.option(
    "--keyless",
    is_flag=True,
    help="Sign without a key, with Sigstore (CI identity or browser login). Your identity is published in a "
    "transparency log.",
)
@click.pass_context
def command(
    context: click.Context, recipe: Path | None, results: Path, key: str | None, *, keyless: bool
) -> None:
    """Write the claims about the release; sign them and the model."""
    from herdbook import made
    from herdbook import plan as plans
    from herdbook.plan.job import find
    from herdbook.plan.jobs import all_jobs
    from herdbook.signing.keyless import Keyless
    from herdbook.signing.keys import PrivateKey
    from herdbook.signing.signer import signer_of
    from herdbook.steps.machine import Machine
    from herdbook.steps.registry import STEPS

    if keyless and context.get_parameter_source("key") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--key and --keyless exclude each other")
    plan = plans.load(options.named(recipe), results)
    signer = signer_of(settings.KEYLESS if keyless else key or "")
    jobs = all_jobs(plan, signer)
    made.check(plan.layout, jobs, find(jobs, "attest").inputs)
    STEPS["attest"](plan, None, Machine(signer=signer))
    match signer:
        case PrivateKey():
            state = f"signed by {signer.public.fingerprint}"
        case Keyless():
            state = "signed without a key; `herdbook verify` shows the signer"
        case None:
            state = "not signed: no key is configured"
            if named := plan.recipe.release.signer:
                state += f". The recipe names who signs ({named}), so it passes `herdbook verify` only with --unsigned"
    say(*(f"{one.layout.release_folder}: {state}" for one in plan.editions))
