"""``herdbook extract``: a LoRA adapter from a fine-tune and its base."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.visible import say

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.recipe.rank import RankRule


class Rule(click.ParamType["RankRule"]):
    """A rank rule, written as in a recipe, without braces: ``32``, ``energy: 0.9``."""

    name = "rule"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> RankRule:
        """Return the rule."""
        from herdbook import yamlio
        from herdbook.recipe import rank_rule

        try:
            rule = rank_rule(yamlio.load(str(value)))
        except ValueError:
            self.fail(
                f"{value!r}: expected a number, mp-edge, gavish-donoho, laser-rmt, or one of fraction, energy and "
                "gavish-donoho with a number, such as 'energy: 0.9'",
                param,
                ctx,
            )
        if rule.needs_text:
            self.fail(
                f"{value!r}: {rule.name} needs calibration text, which an extraction does not have",
                param,
                ctx,
            )
        return rule


@click.command(
    cls=repository.Command,
    epilog=options.examples(
        "herdbook extract owner/base owner/tuned -o adapter --rank 64",
        "herdbook extract base tuned -o adapter --rank 'energy: 0.9' --threads 4",
        "herdbook extract base tuned -o adapter --rank 64 --modules-to-save norm",
        "herdbook extract base tuned -o adapter --check",
    )
    + options.table(
        "Exit status",
        {
            "0": "the adapter is complete, or passed the check",
            "2": "the models do not fit each other, or the folder is in use",
            "4": "a model cannot be read, or the record is damaged",
            "8": "--check found a difference",
        },
    ),
)
@click.argument("base", type=options.PLACE)
@click.argument("tuned", type=options.PLACE)
@click.option(
    "-o", "--output", type=options.FOLDER, metavar="FOLDER", required=True, help="The adapter's folder."
)
@click.option(
    "--rank",
    type=Rule(),
    metavar="RULE",
    help="Required, unless --check is given: how much of each change is kept, a rule of recipes, such as 64, 'energy: 0.9' or mp-edge.",
)
@click.option(
    "--modules-to-save",
    multiple=True,
    metavar="PATTERN",
    help="Modules that are saved whole if they differ, such as norm, '*layernorm' or lm_head. May be given several times.",
)
@click.option(
    "--leave-out",
    multiple=True,
    metavar="PATTERN",
    help="Modules whose change is left out, such as 'self_attn.*'. May be given several times.",
)
@click.option(
    "--dry-run", is_flag=True, help="Compare headers and settings, and show the work; write nothing."
)
@click.option("--check", is_flag=True, help="Compare the adapter in FOLDER with both models; write nothing.")
@options.threads
@options.device
def command(
    base: str,
    tuned: str,
    output: Path,
    rank: RankRule | None,
    modules_to_save: tuple[str, ...],
    leave_out: tuple[str, ...],
    threads: int,
    device: str,
    *,
    dry_run: bool,
    check: bool,
) -> int:
    """Extract a LoRA adapter from a fine-tune and its base.

    BASE and TUNED are folders, or owner/name[@revision] on the Hub. The change of
    each matrix is approximated by one of low rank, in float64. PEFT loads the
    adapter, and a recipe can fold it into BASE. extraction.json lists the rank of
    each matrix and what is kept. An interrupted extraction continues where it
    stopped.
    """
    if check == (rank is not None):
        raise click.UsageError("pass either --rank RULE, to extract, or --check")
    if check and (dry_run or modules_to_save or leave_out):
        raise click.UsageError("--check takes everything else from the adapter's record")
    from herdbook.extract.model import open_model

    if check:
        from herdbook.extract.check import check_adapter

        problems = check_adapter(open_model(base), open_model(tuned), output, threads)
        say(*(problems or [f"{output}: is what its record states"]))
        return 8 if problems else 0
    from herdbook.extract.extraction import Extraction, summary
    from herdbook.extract.pair import Choice, Pair
    from herdbook.humanize import duration, plural, size
    from herdbook.needs.time import SLOW
    from herdbook.steps.machine import devices

    assert rank is not None  # noqa: S101 - checked above
    pair = Pair(open_model(base), open_model(tuned), Choice(rank, modules_to_save, leave_out))
    extraction = Extraction(pair, output)
    if extraction.is_done():
        say(f"{output}: is already complete")
        return 0
    if dry_run:
        work = extraction.outlook()
        seconds = work["operations"] / SLOW.float64 / threads
        say(
            f"{plural(work['matrices'], 'matrix', 'matrices')} to compare, {size(work['download_bytes'])} to download; at most "
            f"{duration(seconds)} of computing with {plural(threads, 'thread')} of a slow machine"
        )
        return 0
    say(*summary(extraction.run(threads, devices(device)[0])))
    return 0
