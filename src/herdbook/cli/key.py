"""``herdbook key``: a key pair for signing."""

from __future__ import annotations

import subprocess
import sys
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
    $HERDBOOK_SIGNING_PASSWORD encrypts it, if set. Keep FILE out of version
    control: one that git does not ignore is warned of.
    """
    from herdbook.signing.keys import generate

    public = generate(file)
    say(f"private key: {file} (keep it secret)")
    say(f"public key:  {file}.pub, fingerprint {public.fingerprint}")
    if _would_be_committed(file):
        say(
            f"warning: git does not ignore {file}, so `git add` takes the private key: move it out of this checkout, or name "
            "it in .gitignore",
            file=sys.stderr,
        )


def _would_be_committed(file: Path) -> bool:
    """Return whether a file is in a git work tree that does not ignore it; False where git cannot tell."""
    command = ["git", "-C", str(file.parent), "check-ignore", "--quiet", "--", file.name]
    try:
        asked = subprocess.run(command, capture_output=True, check=False)
    except OSError:  # there is no git
        return False
    return asked.returncode == 1  # 0: it is ignored; 128: this is no work tree
