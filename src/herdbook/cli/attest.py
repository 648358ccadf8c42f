"""``herdbook attest``: the claims about a release, and signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook import settings
from herdbook.cli import options, repository

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.signing.signer import Signer


@click.command(cls=repository.Command)
@options.recipe
@options.results
@click.option(
    "--key",
    type=options.PATH,
    metavar="FILE",
    help=f"Private key (PEM) to sign with. Default: ${settings.SIGNING_KEY.variable}; without a key nothing is signed.",
)
@click.option(
    "--keyless",
    is_flag=True,
    help="Sign without a key, with Sigstore (CI identity or browser login). Your identity is published in a "
    "transparency log.",
)
def command(recipe: Path, results: Path, key: Path | None, *, keyless: bool) -> None:
    """Write the claims about the release; sign them and the model."""
    from herdbook import plan as plans
    from herdbook.signing.keyless import Keyless
    from herdbook.signing.keys import PrivateKey, load_private
    from herdbook.signing.signer import configured_signer
    from herdbook.steps.machine import Machine
    from herdbook.steps.registry import STEPS

    if key and keyless:
        raise click.UsageError("--key and --keyless exclude each other")
    plan = plans.load(recipe, results)
    if keyless:
        signer: Signer | None = Keyless()
    else:
        signer = load_private(key) if key else configured_signer()
    STEPS["attest"](plan, None, Machine(signer=signer))
    match signer:
        case PrivateKey():
            state = f"signed by {signer.public.fingerprint}"
        case Keyless():
            state = "signed without a key; `herdbook verify` shows the signer"
        case None:
            state = "not signed: no key is configured"
    print(f"{plan.layout.release_folder}: {state}")
