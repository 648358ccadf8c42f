"""The settings of a repository, ``config/config.yaml``: read here as Snakemake reads them, so that nothing is typed twice.

Each becomes the environment variable that steps read (``herdbook.settings``), unless that is set; one that is set but
empty counts: so Snakemake says that a setting of the file does not hold for a job.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from herdbook.errors import RecipeError
from herdbook.settings import SETTINGS

FILE = Path("config/config.yaml")


class Command(click.Command):
    """A command that reads the settings of the repository in which it is run, before its own options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the settings, then the options. Help is shown whatever the file holds."""
        if not ctx.resilient_parsing and not set(args) & set(self.get_help_option_names(ctx)):
            apply()
        return super().parse_args(ctx, args)


class Group(Command, click.Group):
    """A group of commands that does so."""


def apply(path: Path = FILE) -> None:
    """Set those environment variables that the file names and that are not set.

    Raises:
        RecipeError: If the file cannot be read, or holds something else than settings.
    """
    for variable, value in read(path).items():
        os.environ.setdefault(variable, value)


def read(path: Path = FILE) -> dict[str, str]:
    """Return the settings of a file by their environment variables; none if there is no such file.

    Raises:
        RecipeError: If the file cannot be read, or holds something else than settings.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", str(path)) from error
    from herdbook import yamlio
    from herdbook.humanize import did_you_mean

    try:
        content = yamlio.load(text, yamlio.PyYamlLoader) or {}  # as Snakemake reads it
    except yamlio.YamlError as error:
        raise RecipeError(str(error), str(path)) from error
    if not isinstance(content, dict):
        raise RecipeError("is not a mapping of settings", str(path))
    known = {setting.key: setting.variable for setting in SETTINGS if setting.key}
    problems = []
    for key, value in content.items():
        if key not in known:
            problems.append(f"{key}: unknown setting{did_you_mean(key, known)}")
        elif isinstance(value, bool) or not isinstance(value, str | int | float | None):
            problems.append(f"{key}: expected a text or a number")
    if problems:
        raise RecipeError(problems, str(path))
    return {known[key]: str(value) for key, value in content.items() if value not in {None, ""}}
