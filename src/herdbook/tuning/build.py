"""Building trials with Snakemake: on the cores of this machine, or wherever a profile leads."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import yaml

from herdbook import lock as locks
from herdbook.errors import StepError
from herdbook.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from herdbook.plan import Plan

ALL_CORES = ("--cores", "all")
HEAD = "# Written by `herdbook tune`: trials of a search. It is overwritten, and may be deleted.\n"


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
            StepError: If Snakemake is not installed, or a job failed.
        """
        program = shutil.which("snakemake")
        if program is None:
            raise StepError(
                "snakemake is not installed. Install it with:\n  pip install 'herdbook[workflow]'"
            )
        write_recipe(plan)
        command = [
            program,
            *self._arguments,
            "--config",
            f"recipe={plan.recipe_path}",
            "--",
            *map(str, wanted),
        ]
        if subprocess.run(command, check=False).returncode:
            raise StepError(
                "a trial could not be built; Snakemake has named the job and its log. What was measured is kept: run `herdbook tune` "
                "again to go on"
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
