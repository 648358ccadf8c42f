"""The level `rebuild`: everything is made again from upstream in a scratch folder, and compared file by file.

What a release does not carry and strangers cannot have (texts that were measured on, calibration texts, folders of the
author's) is taken from the author's folder if the verifier has a copy. Without it, measurements and searches are taken
as the release records them, and that is told.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from herdbook.errors import LockError, RecipeError, UnverifiedError
from herdbook.layout import BOMS, CARD, EVALUATIONS, FIGURES, RECORDS, ROUTING, SEARCHES, SUMS
from herdbook.needs import check_disk
from herdbook.plan import Part
from herdbook.release.finding import Check
from herdbook.release.sums import parse_sums
from herdbook.verify.rebuild.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.rebuild.workspace import Workspace

LEVEL = "rebuild"
STEPS = Check(LEVEL, "steps")
TAKEN = Check(LEVEL, "taken over")
FILES = Check(LEVEL, "same files")


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Build the release again and compare its files."""
    with open_workspace(release, options, LEVEL) as workspace:
        plan = workspace.plan
        try:
            check_disk(plan)
        except RecipeError as error:
            raise UnverifiedError(str(error)) from error
        if not workspace.own_inputs:
            yield from _taken_over(workspace)
        try:
            _build(workspace)
        except LockError as error:  # a file of the verifier's own copy is not what was locked
            raise UnverifiedError(str(error)) from error
        yield STEPS.passed(f"{len(plan.parts)} shards", "were made again, and what is made of them")
        yield from _compared(workspace, release)


def _taken_over(workspace: Workspace) -> Iterator[Finding]:
    """Take over what needs the author's texts."""
    plan = workspace.plan
    texts = plan.report is not None and bool(plan.report.texts)
    workspace.take_over(SEARCHES, EVALUATIONS, *([ROUTING] if texts else []))
    for search in plan.searches.values():
        detail = "which matrices are reduced is taken as recorded: the text it was chosen by is not in the release (--inputs)"
        yield TAKEN.unverified(search.id, detail)
    for item in plan.evaluations:
        detail = "is taken as recorded: the texts are not in the release (--inputs)"
        yield TAKEN.unverified(f"measurement {item.name}", detail)
    if texts:
        detail = "is taken as recorded: its texts are not in the release (--inputs)"
        yield TAKEN.unverified("report on routers", detail)


def _build(workspace: Workspace) -> None:
    """Do all jobs, in order. What was made in an earlier run, in a folder that the verifier named, is not made again."""
    from herdbook.plan.jobs import result_jobs
    from herdbook.steps.machine import Machine
    from herdbook.steps.registry import STEPS, run

    plan, machine = workspace.plan, Machine(threads=os.cpu_count() or 1)
    for job in result_jobs(plan):
        if isinstance(job.subject, Part) and job.rule in {"fetch", "adapter"}:
            workspace.within_reach(plan.nodes[job.subject.model])
        if not all(path.exists() for path in job.outputs):
            run(plan, job, machine)
    for rule in ("card", "release"):  # their keys rest on code that a release does not record
        STEPS[rule](plan, None, machine)


def _compared(workspace: Workspace, release: Release) -> Iterator[Finding]:
    """Compare the files with those of the release."""
    plan: Plan = workspace.plan
    made = parse_sums((plan.layout.release_folder / SUMS).read_text(encoding="utf-8"), SUMS)
    same = 0
    computed, measured = (devices(release, *kinds) for kinds in ((RECORDS, SEARCHES), (EVALUATIONS, ROUTING)))
    for name in sorted(made.keys() | release.sums.keys()):
        ours, theirs = made.get(name), release.sums.get(name)
        if ours == theirs:
            same += 1
            continue
        about = {"file": name, "expected": ours or "no such file", "found": theirs or "no such file"}
        elsewhere = sorted(computed | (measured if tells_measurements(name) else set()))
        if workspace.changed:
            detail = f"comes out otherwise here; but other versions made the release: {', '.join(workspace.changed)}"
            yield FILES.unverified(name, detail, **about)
        elif elsewhere:
            detail = (
                f"comes out otherwise on this CPU; but part of it was computed on {', '.join(elsewhere)}, whose last "
                "digits are others"
            )
            yield FILES.unverified(name, detail, **about)
        else:
            yield FILES.failed(name, "comes out otherwise", **about)
    if same:
        yield FILES.passed(f"{same} of {len(release.sums)} files", "are the same, byte by byte")


def devices(release: Release, *kinds: str) -> set[str]:
    """Return the kinds of device, other than a CPU, that small results of a release name.

    Args:
        release: The release.
        kinds: Which results, by their folders: ``RECORDS``, ``EVALUATIONS``, ...
    """
    found: set[str] = set()
    for name in release.sums:
        if name.startswith(tuple(f"{kind}/" for kind in kinds)) and name.endswith(".json"):
            content = json.loads(release.subject.read(name))
            for entry in (content, *content.get("tensors", {}).values()):
                found |= {str(entry["device"])} if "device" in entry else set()
    return found


def tells_measurements(name: str) -> bool:
    """Say whether a file of a release holds measurements, or numbers and digests of them."""
    return name.startswith((EVALUATIONS, ROUTING, FIGURES)) or name in {CARD, *BOMS.values()}
