"""Shell completion of recipes, models and jobs. It runs, downloads and writes nothing, and shows no errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from click.core import ParameterSource
from click.shell_completion import CompletionItem

from herdbook.layout import RECIPE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from click import Context, Parameter

    from herdbook.plan import Plan

FOLDERS = (
    "config",
    "recipes",
)  # the folders of recipes in this repository, and in those made by `herdbook new`
MOST_BYTES = 10**6  # a YAML file beyond that is not a recipe
ALL = "all"


def recipes(_context: Context, _parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the recipes in the usual folders and in the folder that is being typed; any file without any recipe."""
    folder = incomplete if incomplete.endswith("/") else str(Path(incomplete).parent)
    paths = [path for path in found_recipes(folder) if path.startswith(incomplete)]
    return [CompletionItem(path) for path in paths] or [CompletionItem(incomplete, type="file")]


def found_recipes(folder: str) -> list[str]:
    """Return the recipes in a folder and in the usual ones, sorted."""
    return sorted(
        str(path)
        for place in {Path(folder), *map(Path, FOLDERS)}
        if place.is_dir()
        for path in place.iterdir()
        if path.suffix in RECIPE_SUFFIXES and is_recipe(path)
    )


def jobs(context: Context, _parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of the step's jobs."""
    from herdbook.plan.jobs import result_jobs

    plan = _plan(context)
    of_rule = [job for job in result_jobs(plan) if job.rule == context.info_name] if plan else []
    return _matching([(job.id, job.model) for job in of_rule], incomplete)


def targets(context: Context, _parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the rules, models and jobs of a build."""
    from herdbook.plan.jobs import jobs

    plan = _plan(context)

    def names() -> Iterator[tuple[str, str]]:
        yield ALL, "every job"
        for job in jobs(plan) if plan else []:
            yield job.rule, "rule"
            yield from ((model, "model") for model in job.models)
            if job.id:
                yield job.id, job.rule

    return _matching(names(), incomplete)


def _matching(names: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    unique = {name: about for name, about in names if name.startswith(incomplete)}
    return [CompletionItem(name, help=about) for name, about in unique.items()]


def is_recipe(path: Path) -> bool:
    """Return whether a file looks like a recipe."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return False
        return any(line.startswith("models:") for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return False


def _plan(context: Context) -> Plan | None:
    """Return the plan of the recipe on the command line, or else of the repository's; None if it cannot be loaded."""
    from herdbook import plan as plans
    from herdbook import settings
    from herdbook.cli import repository
    from herdbook.errors import HerdbookError

    try:
        repository.apply()
        is_typed = context.get_parameter_source("recipe") is ParameterSource.COMMANDLINE
        return plans.load(Path(context.params["recipe"] if is_typed else settings.RECIPE.value))
    except (HerdbookError, OSError):
        return None
