"""``herdbook spectrum``: the singular values of a checkpoint's matrices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.visible import say

if TYPE_CHECKING:
    from pathlib import Path


class Layers(click.ParamType[range | None]):
    """Layers of a model: a number, a range, or ``all``. The value is a range, or None for all."""

    name = "layers"

    def convert(
        self, value: str | range, param: click.Parameter | None, ctx: click.Context | None
    ) -> range | None:
        """Return the range of layers; None for all."""
        if isinstance(value, range):
            return value
        if value == "all":
            return None
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", value, re.ASCII)
        if match is None:
            self.fail(f"{value!r}: expected a number, a range such as 20-29, or all", param, ctx)
        return range(int(match[1]), int(match[2] or match[1]) + 1)


@click.command(
    cls=repository.Command,
    epilog=options.examples("herdbook spectrum owner/name --layers 20-29 --page spectra.html"),
)
@click.argument("model")
@click.option(
    "--matrices",
    multiple=True,
    metavar="PATTERN",
    help="Matrices to show, such as 'mlp.*'. May be given several times (default: all).",
)
@click.option(
    "--layers",
    type=Layers(),
    metavar="LAYERS",
    default="all",
    show_default=True,
    help="A layer, or a range such as 20-29.",
)
@click.option(
    "--page", type=options.REPORT, metavar="FILE", help="Write heat maps and all spectra to FILE, as HTML."
)
@options.json
@options.threads
@options.device
def command(
    model: str,
    matrices: tuple[str, ...],
    layers: range | None,
    page: Path | None,
    json: Path | None,
    threads: int,
    device: str,
) -> None:
    """Show singular values, and the ranks that the rules would keep.

    MODEL is a folder, a safetensors file, or owner/name[@revision] on the Hub.
    """
    from herdbook.cli.output import keep_apart, write_report
    from herdbook.files import write_output
    from herdbook.steps.laser import spectrum as spectra
    from herdbook.steps.machine import devices

    keep_apart((model,), {"--json": json, "--page": page})
    selected = spectra.matrices(model, list(matrices), lambda layer: layers is None or layer in layers)
    computed = list(spectra.spectra(selected, threads, devices(device)[0]))
    say(*spectra.as_table(computed).split("\n"))
    if json:
        write_report(json, spectra.as_json(computed))
    if page:
        write_output(page, spectra.as_page(model, computed))
