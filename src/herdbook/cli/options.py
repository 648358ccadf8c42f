"""Options that several commands share, each defined once."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from herdbook import settings
from herdbook.cli import completion, repository
from herdbook.errors import RecipeError
from herdbook.humanize import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Function = TypeVar("Function", bound="Callable[..., Any]")

FILE = click.Path(path_type=Path, dir_okay=False)
EXISTING_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)


class Parsed(click.ParamType[Any]):
    """The value of a setting.

    Args:
        setting: The setting, which parses the text.
    """

    def __init__(self, setting: settings.Setting) -> None:
        self.name, self._setting = setting.key, setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the text means."""
        try:
            return self._setting.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Place(click.ParamType[str]):
    """A folder that exists, or a repository on the Hub, by its name."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, if it can be a place."""
        from herdbook.release.subject import can_be_opened
        from herdbook.release.unopened import not_opened

        text = str(value)
        if not can_be_opened(text):
            self.fail(not_opened(text), param, ctx)
        return text


class _PlaceOrFile(_Place):
    """The same, or a file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, if it can be a place or is a file."""
        from herdbook.release.unopened import is_file

        return str(value) if is_file(str(value)) else super().convert(value, param, ctx)


class _PublicKey(click.Path):
    """The file of a public key, which is read before anything else is done."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, exists=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, if it leads to a public key."""
        from herdbook.errors import StepError
        from herdbook.signing.keys import load_public

        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            load_public(path)
        except StepError as error:
            self.fail(str(error), param, ctx)
        return path


class _Report(click.Path):
    """A file to write. A hyphen is none: elsewhere it means standard output, which has a path of its own."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, if it is not a hyphen."""
        if str(value) == "-":
            self.fail("name a file; /dev/stdout prints it", param, ctx)
        return super().convert(value, param, ctx)


PLACE = _Place()
PLACE_OR_FILE = _PlaceOrFile()
PUBLIC_KEY = _PublicKey()
REPORT = _Report()

recipe_if_needed = click.option(
    repository.RECIPE_OPTION,
    type=FILE,
    metavar="FILE",
    envvar=settings.RECIPE.variable,
    show_envvar=True,
    shell_complete=completion.recipes,
    help=f"The recipe ({repository.FILE}: recipe).",
)
results = click.option(
    "--results",
    type=FOLDER,
    metavar="FOLDER",
    envvar=settings.RESULTS.variable,
    default=settings.RESULTS.default,
    show_envvar=True,
    show_default=True,
    help="The results folder.",
)
threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of threads; does not affect the result.",
)
device = click.option(
    "--device",
    type=Parsed(settings.DEVICE),
    metavar="DEVICE",
    envvar=settings.DEVICE.variable,
    default=settings.DEVICE.default,
    show_envvar=True,
    show_default=True,
    help="Device to compute on, such as cpu, cuda or cuda:1. The CPU's result is the reference "
    f"({repository.FILE}: device).",
)
gpu_memory = click.option(
    "--gpu-memory",
    type=Parsed(settings.GPU_MEMORY),
    metavar="GB",
    envvar=settings.GPU_MEMORY.variable,
    show_envvar=True,
    help="Memory of one GPU in GB, or with its unit; bounds what is placed on it. Unknown by default "
    f"({repository.FILE}: gpu_memory).",
)
json = click.option("--json", type=REPORT, metavar="FILE", help="Also write the result to FILE, as JSON.")


def named(recipe: Path | None) -> Path:
    """Return the recipe that was named on the command line or is configured.

    Raises:
        RecipeError: If there is none.
    """
    if recipe is None:
        configured = (
            f"{repository.FILE} names no recipe" if repository.FILE.exists() else f"no {repository.FILE} here"
        )
        raise RecipeError(
            f"{configured}: run in a repository of recipes (`herdbook new` makes one), or name a recipe "
            f"with {repository.RECIPE_OPTION}{_others()}"
        )
    if not recipe.exists():
        others = completion.found_recipes(str(recipe.parent))
        hint = did_you_mean(str(recipe), others) or _others()
        raise RecipeError(f"cannot be read: No such file or directory{hint}", str(recipe))
    return recipe


def _others() -> str:
    """Return what to name instead, as a continuation of a sentence; empty if there is no recipe here."""
    found = completion.found_recipes(".")
    return f". Recipes here: {', '.join(found)}" if found else ""


def recipe(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--recipe``. What it names, or ``config/config.yaml`` does, is a file that exists."""

    @functools.wraps(function)
    def run(*, recipe: Path | None, **others: Any) -> Any:
        return function(recipe=named(recipe), **others)

    return recipe_if_needed(run)


def either(argument: Path | None, option: Path | None) -> Path | None:
    """Return the recipe that was given as an argument, or else that of the option or the configuration.

    Raises:
        click.UsageError: If both were given on the command line, and differ.
    """
    if argument is None:
        return option
    source = click.get_current_context().get_parameter_source("recipe")
    if source is ParameterSource.COMMANDLINE and option != argument:
        raise click.UsageError(f"two recipes were given: {argument} and --recipe {option}")
    return argument


def recipe_or_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--recipe`` and an optional argument for the same recipe."""

    @functools.wraps(function)
    def run(*, recipe_argument: Path | None, recipe: Path | None, **others: Any) -> Any:
        return function(recipe=named(either(recipe_argument, recipe)), **others)

    argument = click.argument(
        "recipe_argument", metavar="[RECIPE]", required=False, type=FILE, shell_complete=completion.recipes
    )
    return argument(recipe_if_needed(run))


def examples(*lines: str) -> str:
    """Return a section for the end of a help text: example command lines."""
    return _block("Examples", lines)


def table(title: str, rows: Mapping[str, str]) -> str:
    """Return a section for the end of a help text: names with their meanings."""
    width = max(map(len, rows))
    return _block(title, [f"{name:<{width}}  {meaning}" for name, meaning in rows.items()])


def _block(title: str, lines: Iterable[str]) -> str:
    """Return lines that click does not wrap, as a paragraph."""
    return "\n".join(["\b", f"{title}:", *(f"  {line}" for line in lines), "", ""])
