"""Building trials with Snakemake: on the cores of this machine, or wherever a profile leads."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from herdbook import lock as locks
from herdbook.errors import StepError
from herdbook.files import write_text
from herdbook.settings import TRIALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.plan import Plan

ALL_CORES = ("--cores", "all")
HEAD = "# Written by `herdbook tune`: trials of a search. It is overwritten, and may be deleted.\n"


def path_of_trials(recipe_path: Path) -> Path:
    """Return the path of the recipe of trials, beside the recipe whose tasks and folders it names."""
    return recipe_path.with_suffix(".trials.yaml")


def are_of(trials: str, recipe: str) -> bool:
    """Return whether a recipe of trials is that of a recipe, for a workflow that builds several."""
    return path_of_trials(Path(recipe)).absolute() == Path(trials).absolute()


class Snakemake:
    """Builds files of a plan by running Snakemake on a recipe of its own.

    Args:
        arguments: Further arguments, such as ``--profile``; all cores of this machine if there are none.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = tuple(arguments) or ALL_CORES

    def __call__(self, plan: Plan, wanted: Sequence[Path]) -> None:
        """Make some files.

        Args:
            plan: The plan of the trials; its recipe and its lock are written.
            wanted: The files.

        Raises:
            StepError: If Snakemake is not installed, or a job failed, or it built nothing.
        """
        program = shutil.which("snakemake")
        if program is None:
            raise StepError(
                "snakemake is not installed. Install it with:\n  pip install 'herdbook[workflow]'"
            )
        write_recipe(plan)
        command = [program, *self._arguments, "--", *map(str, wanted)]
        # Of several --config, Snakemake takes the last one alone, and a module has a configuration of its own.
        environment = {**os.environ, TRIALS.variable: str(plan.recipe_path)}
        if subprocess.run(command, env=environment, check=False).returncode:
            raise StepError(
                "Snakemake did not build the trials: what is above says why, with the log of a job that failed. What was measured is "
                "kept: run `herdbook tune` again to go on; if a trial cannot be measured at all, search narrower ranges"
            )
        if missing := [path for path in wanted if not path.exists()]:
            raise StepError(
                f"{missing[0]}: Snakemake did not make it. Leave out options with which it builds nothing"
            )


def write_recipe(plan: Plan) -> None:
    """Write a plan's recipe and lock, where the plan has them."""
    content: dict[str, Any] = plan.recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    write_text(plan.recipe_path, HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    locks.write(plan.lock, locks.path_for(plan.recipe_path))


def remove_recipe(path: Path) -> None:
    """Remove the recipe of trials and its lock."""
    for one in (path, locks.path_for(path)):
        one.unlink(missing_ok=True)
