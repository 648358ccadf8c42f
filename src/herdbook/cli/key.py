"""``herdbook key``: a key pair for signing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import options
from herdbook.visible import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=options.examples("herdbook key ~/.config/herdbook/signing.pem"))
@click.argument("file", type=options.PATH)
def command(file: Path) -> None:
    """Make a key pair for signing.

    The private key is written to FILE, the public one to FILE.pub.
    $HERDBOOK_SIGNING_PASSWORD encrypts it, if set.
    """
    from herdbook.signing.keys import generate

    public = generate(file)
    say(f"private key: {file} (keep it secret)")
    say(f"public key:  {file}.pub, fingerprint {public.fingerprint}")
