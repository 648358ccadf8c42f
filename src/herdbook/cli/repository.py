"""The settings of a repository, ``config/config.yaml``: read as Snakemake reads them, so that users set them once.

Each becomes the environment variable that steps read (``herdbook.settings``), unless the variable is set. A variable that
is set but empty counts as set: with it, the workflow disables a setting of the file for a job.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from herdbook.cli.completion import is_recipe
from herdbook.errors import RecipeError
from herdbook.settings import SETTINGS, are_set, problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FILE = Path("config/config.yaml")
RECIPE_OPTION = "--recipe"
_RELEASE_OPTION = "--release"
_EXTRA = "Got unexpected extra argument"  # click's words


class Command(click.Command):
    """A command that applies the settings of the repository in which it is run, before it parses its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Apply the settings, then parse the options. Help is shown even if the file is invalid."""
        if not ctx.resilient_parsing and not set(args) & set(self.get_help_option_names(ctx)):
            apply()
        try:
            return super().parse_args(ctx, list(args))
        except click.UsageError as error:
            hint = self._instead_of(args) if error.message.startswith(_EXTRA) else ""
            if not hint:
                raise
            raise click.UsageError(f"{error.message}{hint}", ctx) from error

    def _instead_of(self, args: list[str]) -> str:
        """Return with which option an argument is given that the command does not take, as the end of a message."""
        known = {name for parameter in self.params for name in parameter.opts}
        for argument in args:
            if RECIPE_OPTION in known and is_recipe(Path(argument)):
                return f". A recipe is named by an option here: {RECIPE_OPTION} {argument}"
            if _RELEASE_OPTION in known and Path(argument).is_dir():
                return f". A release is named by an option here: {_RELEASE_OPTION} {argument}"
        return ""


class Group(Command, click.Group):
    """A group of commands that applies them."""


def apply(path: Path = FILE) -> None:
    """Set the environment variables of the file's settings, unless they are set.

    If all are, as in the jobs of a build, the file is not read: it may be edited while the build runs.

    Raises:
        RecipeError: If the file cannot be read, or contains anything but settings.
    """
    if are_set():
        return
    for variable, value in read(path).items():
        os.environ.setdefault(variable, value)


def read(path: Path = FILE) -> dict[str, str]:
    """Return the settings of a file by their environment variables; an empty dict if the file does not exist.

    Raises:
        RecipeError: If the file cannot be read, or contains anything but settings.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", str(path)) from error
    from herdbook import yamlio

    try:
        content = yamlio.load(text, yamlio.PyYamlLoader) or {}  # as Snakemake reads it
    except yamlio.YamlError as error:
        raise RecipeError(str(error), str(path)) from error
    if not isinstance(content, dict):
        raise RecipeError("is not a mapping of settings", str(path))
    known = {setting.key: setting.variable for setting in SETTINGS if setting.key}
    if found := problems(content):
        lines = _lines(text)
        raise RecipeError(found, str(path), [lines.get(problem.partition(":")[0]) for problem in found])
    return {known[key]: str(value) for key, value in content.items() if value not in {None, ""}}


def located_problems(
    config: Mapping[str, Any], files: Sequence[Path], otherwise: str, others: Iterable[str] = ()
) -> list[str]:
    """Return what ``settings.problems`` returns, each with the file that sets the key.

    Args:
        config: The configuration.
        files: The files that it was read from, of which a later one overrides an earlier one.
        otherwise: What is named for a value that is in none of them.
        others: See ``settings.problems``.
    """
    contents = [(file, *_content(file)) for file in reversed(files)]
    found = []
    for key, value in config.items():
        place = next(
            (
                f"{file}: line {lines[key]}" if key in lines else str(file)
                for file, content, lines in contents
                if key in content and content[key] == value
            ),
            otherwise,
        )
        found += [f"{place}: {problem}" for problem in problems({key: value}, others)]
    return found


def _content(file: Path) -> tuple[Mapping[Any, Any], dict[Any, int]]:
    """Return the content of a file, and the lines of its keys; empty if it cannot be read."""
    from herdbook import yamlio

    try:
        text = file.read_text(encoding="utf-8")
        content = yamlio.load(text, yamlio.PyYamlLoader)
    except (OSError, UnicodeDecodeError, yamlio.YamlError):
        return {}, {}
    return (content, _lines(text)) if isinstance(content, dict) else ({}, {})


def _lines(text: str) -> dict[Any, int]:
    """Return the line of each key of a mapping that PyYAML can read."""
    from herdbook import yamlio

    (document,) = yamlio.documents(text, yamlio.PyYamlLoader)[:1]
    return {keys[0]: line for keys, line in document.lines.items() if len(keys) == 1}
