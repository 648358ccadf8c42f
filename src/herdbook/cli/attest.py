"""``herdbook attest`` and ``herdbook key``: claims, signatures, and the key that makes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from herdbook.cli.command import Add


def register(add: Add) -> None:
    """Add the commands."""
    command = add("attest", "write the claims about the release, and sign them and the model", _attest)
    who = command.add_mutually_exclusive_group()
    who.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="private key, PEM (default: $HERDBOOK_SIGNING_KEY; without one, nothing is signed)",
    )
    who.add_argument(
        "--keyless",
        action="store_true",
        help="sign as who you are, with Sigstore: as the CI vouches, or by a browser; your identity stays in a public log",
    )
    making = add("key", "make a key pair for signing", _key, recipe=False)
    making.add_argument(
        "file", type=Path, help="where the private key goes; the public one goes to FILE.pub beside it"
    )


def _attest(options: argparse.Namespace) -> None:
    from herdbook import plan as plans
    from herdbook.signing.keyless import Keyless
    from herdbook.signing.keys import PrivateKey, load_private
    from herdbook.steps.attest.step import attest, configured_signer

    plan = plans.load(options.recipe, options.results)
    if options.keyless:
        signer: PrivateKey | Keyless | None = Keyless()
    else:
        signer = load_private(options.key) if options.key else configured_signer()
    attest(plan, signer)
    match signer:
        case PrivateKey():
            said = f"signed by {signer.public.fingerprint}"
        case Keyless():
            said = "signed without a key; `herdbook verify` says by whom"
        case None:
            said = "not signed: there is no key"
    print(f"{plan.layout.release_folder}: {said}")


def _key(options: argparse.Namespace) -> None:
    from herdbook.signing.keys import generate

    public = generate(options.file)
    print(f"private key: {options.file} (keep it to yourself)")
    print(f"public key:  {options.file}.pub, fingerprint {public.fingerprint}")
