"""External programs and optional packages: what a job runs, and whether it is installed here.

The packages are those of jobs that come late in a build; without the others, its first jobs fail.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.plan import Conversion, Evaluation, EvaluationData, Imatrix, Quantized
from herdbook.tools.converter import CONVERTER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan.job import Job, Subject
    from herdbook.tools.external import Tool


def program(subject: Subject | None) -> Tool | None:
    """Return the external program that makes an item of the plan; None if our own code does."""
    return CONVERTER if isinstance(subject, Conversion) else None


def extra(subject: Subject | None) -> tuple[str, str] | None:
    """Return the optional package that makes an item of the plan, and the extra of Herdbook that contains it."""
    match subject:
        case Conversion():
            return "gguf", "quantize"
        case Imatrix() | Quantized():
            return "libgguf", "quantize"
        case Evaluation() | EvaluationData():
            return "lm_eval", "evaluate"
    return None


def missing_software(jobs: Iterable[Job]) -> list[str]:
    """Return, for each program or package that some jobs need and that is not installed here, one of them and the remedy."""
    programs: dict[Tool, str] = {}
    extras: dict[tuple[str, str], str] = {}
    jobs = list(jobs)
    for job in jobs:
        if tool := program(job.subject):
            programs.setdefault(tool, job.name)
        if packaged := extra(job.subject):
            extras.setdefault(packaged, job.name)
    missing = []
    for tool, user in programs.items():
        try:
            tool.find()
        except StepError as error:
            missing.append(f"{user}: {error}")
    run = [job.name for job in jobs if getattr(job.subject, "runtime", "")]
    if run and find_spec("llama_cpp") is None:
        missing.append(
            f"{run[0]}: llama.cpp's runtime is not installed (`quantize.runtime`). Install it with:\n"
            "  pip install llama-cpp-python"
        )
    missing += [
        f"{user}: the package {package} is not installed. Install it with:\n  pip install 'herdbook[{name}]'"
        for (package, name), user in extras.items()
        if find_spec(package) is None
    ]
    return missing
