"""``herdbook container``: what an image for Apptainer is built from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from herdbook.cli import options
from herdbook.errors import RecipeError
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@click.command(epilog=options.examples("herdbook container image", "herdbook container --cuda image"))
@click.argument("folder", type=options.PATH)
@click.option("--cuda", is_flag=True, help="For machines with NVIDIA GPUs: torch's CUDA build.")
def command(folder: Path, *, cuda: bool) -> None:
    """Write what an image of the workflow is built from.

    FOLDER must be new or empty. It gets a definition for Apptainer, the pinned
    packages, and the wheel of the Herdbook that runs here. With the image, all
    steps run in containers: snakemake --sdm apptainer.
    """
    from herdbook.progress import waiting
    from herdbook.settings import parse_image
    from herdbook.tools import container

    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RecipeError("exists and is not empty, so nothing was written; pass a new folder", str(folder))
    try:
        parse_image(str(folder))
    except ValueError as error:
        raise RecipeError(str(error)) from error
    with waiting(f"{folder}: making the wheel of Herdbook"):
        names = container.write(folder, cuda=cuda)
    others = list(_others(container.versions(folder, cuda=cuda)))
    if others:
        say(
            f"warning: {', '.join(others)}. Versions are part of the keys, and steps in the image refuse the keys of other "
            f"versions: have the image's here, too ({folder / names[1]}).",
            file=sys.stderr,
        )
    gpu = " --apptainer-args=--nv" if cuda else ""
    device = " device=cuda" if cuda else ""
    say(
        f"{folder}: {', '.join(names)}. Next:",
        f"  {container.build_command(folder, cuda=cuda)}",
        f"  snakemake --cores all --sdm apptainer{gpu} --config container={container.image(folder, cuda=cuda)}{device}",
    )


def _others(versions: dict[str, str]) -> Iterator[str]:
    """Yield the packages of keys that have another version here, with both."""
    from herdbook.plan.parsed import DISTRIBUTIONS, package_version
    from herdbook.tools.container import canonical

    for name in sorted(DISTRIBUTIONS.values()):
        there = versions.get(canonical(name))
        if there is not None and (here := package_version(name)) != there:
            yield f"{name} is {'not installed' if here == 'absent' else here} here and {there} in the image"
