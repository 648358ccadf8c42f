"""External programs: which one a job runs, and whether it is installed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.plan import Conversion, Part
from herdbook.plan.operation import RunMergekit
from herdbook.tools.converter import CONVERTER
from herdbook.tools.mergekit import MERGEKIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan.jobs import Job, Subject
    from herdbook.tools.external import Tool


def program(subject: Subject | None) -> Tool | None:
    """Return the external program that makes an item of the plan; None if our own code does."""
    match subject:
        case Conversion():
            return CONVERTER
        case Part(operation=RunMergekit()):
            return MERGEKIT
    return None


def missing_programs(jobs: Iterable[Job]) -> list[str]:
    """Return, for each program that some jobs need and that is not installed here, which it is and how to install it."""
    users: dict[Tool, str] = {}
    for job in jobs:
        tool = program(job.subject)
        if tool:
            users.setdefault(tool, job.name)
    missing = []
    for tool, user in users.items():
        try:
            tool.find()
        except StepError as error:
            missing.append(f"{user}: {error}")
    return missing
