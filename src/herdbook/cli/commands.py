"""The commands of ``herdbook``, in the groups of its help. A command's module is imported when the command is called."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

from herdbook import __version__
from herdbook.cli import steps
from herdbook.humanize import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "herdbook"
GROUPS = {
    "Recipes": ("new", "import", "lock", "tune", "refresh", "plan", "explain", "schema", "install"),
    "Steps of a build, as Snakemake calls them": (
        *(
            "restore",
            "fetch",
            "search",
            "laser",
            "adapter",
            "merge",
            "moe",
            "compress",
            "files",
            "assemble",
            "routing",
        ),
        *(
            "data",
            "evaluate",
            "convert",
            "imatrix",
            "quantize",
            "reference",
            "loss",
            "card",
            "release",
            "attest",
        ),
    ),
    "Releases": ("publish", "verify", "audit", "compare", "export", "key"),
    "Inspecting any model": ("spectrum", "routers"),
    "Adapters": ("extract",),
    "Disk space": ("cache", "gc"),
}
NAMES = tuple(name for names in GROUPS.values() for name in names)
# The module of a command whose name Python does not allow for a module.
MODULES = {"import": "import_recipe"}
# What people call commands that have other names.
_CHECKS = "; a recipe is checked by `herdbook lock` and `herdbook plan`, a release by `herdbook verify`, another merge by `herdbook audit`"
MEANT = dict.fromkeys(("check", "validate", "lint", "test"), _CHECKS)
# `herdbook verify --foreign` is an alias of `herdbook audit`.
FOREIGN = "--foreign"


class Commands(click.Group):
    """All commands, in groups."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of the help."""
        del ctx
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if it does not exist."""
        del ctx
        if cmd_name not in NAMES:
            return None
        if cmd_name in steps.STEPS:
            return steps.command(cmd_name)
        command: click.Command = import_module(f"herdbook.cli.{MODULES.get(cmd_name, cmd_name)}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: Sequence[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name, and its own arguments."""
        name, *rest = args
        if name == "verify" and FOREIGN in rest:
            name = "audit"
            rest.remove(FOREIGN)
        if name not in NAMES and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no such command: {name!r}{MEANT.get(name) or did_you_mean(name, NAMES)}")
        return super().resolve_command(ctx, [name, *rest])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their groups, one line for each."""
        width = max(map(len, NAMES))
        for title, names in GROUPS.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name.ljust(width), command.get_short_help_str(formatter.width - width - 6))
                        for name, command in commands.items()
                        if command
                    ]
                )


@click.group(
    cls=Commands,
    no_args_is_help=True,
    context_settings={"max_content_width": 80},
    epilog="\b\nHelp on a command:  herdbook COMMAND --help\nThe whole build:    snakemake --cores all",
)
@click.version_option(__version__, message=f"{PROGRAM} %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def herdbook(*, debug: bool) -> None:
    """Build a merged language model's release reproducibly, and prove what it is made from.

    Inside a repository, recipe, device, GPU memory, cache and signing key are
    read from config/config.yaml, as Snakemake reads them. An environment variable
    (HERDBOOK_RECIPE, ...) overrides the file, and an option overrides both.
    """
    del debug
