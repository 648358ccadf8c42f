"""The level `rebuild`: everything is rebuilt from upstream in a scratch folder and compared file by file.

Some inputs are neither in the release nor public: evaluation and calibration texts, and local folders of the author. They
are read from a copy of the author's folder if the verifier has one. Without a copy, measurements and searches are taken
over from the release's records and reported as unverified.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from herdbook.errors import LockError, RecipeError, UnverifiedError
from herdbook.layout import EVALUATIONS, LOSSES, ROUTING, SEARCHES, SUMS
from herdbook.needs import check_disk
from herdbook.plan import Node, Origin, Part
from herdbook.provenance.slsa import codes
from herdbook.release.finding import Check
from herdbook.release.sums import parse_sums
from herdbook.verify.rebuild.bounds import allowed, distance_in_file
from herdbook.verify.rebuild.devices import Devices
from herdbook.verify.rebuild.losses import disagreement
from herdbook.verify.rebuild.routers import TOLERANCE as ROUTERS
from herdbook.verify.rebuild.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.plan import Plan
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.rebuild.workspace import Workspace

LEVEL = "rebuild"
STEPS = Check(LEVEL, "steps")
TAKEN = Check(LEVEL, "taken over")
SAME = Check(LEVEL, "same files")


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Rebuild the release and compare its files."""
    with open_workspace(release, options, LEVEL) as workspace:
        plan = workspace.plan
        for code in codes(plan):
            workspace.code.require_installed(code)
        try:
            check_disk(plan)
        except RecipeError as error:
            raise UnverifiedError(str(error)) from error
        if not workspace.own_inputs:
            yield from _taken_over(workspace)
        try:
            _build(workspace)
        except LockError as error:  # a file of the verifier's own copy differs from the lock
            raise UnverifiedError(str(error)) from error
        yield STEPS.passed(f"{len(plan.parts)} shards", "were rebuilt, and everything that is made from them")
        yield from _compared(workspace, release)


def _taken_over(workspace: Workspace) -> Iterator[Finding]:
    """Take over the results that need the author's texts."""
    plan = workspace.plan
    texts = plan.report is not None and bool(plan.report.texts)
    workspace.take_over(SEARCHES, EVALUATIONS, LOSSES, *([ROUTING] if texts else []))
    if plan.imatrix:
        workspace.take_over_imatrix(plan.imatrix)
        detail = "is taken as recorded: what it was made from is not in the release (pass --inputs)"
        yield TAKEN.unverified("importance matrix", detail)
    for search in plan.searches.values():
        detail = "the choice of matrices is taken as recorded: the text that decided it is not in the release (pass --inputs)"
        yield TAKEN.unverified(search.id, detail)
    for item in plan.evaluations:
        detail = "is taken as recorded: the texts are not in the release (pass --inputs)"
        yield TAKEN.unverified(f"measurement {item.label}", detail)
    for loss in plan.losses:
        detail = "is taken as recorded: its texts are not in the release (pass --inputs)"
        yield TAKEN.unverified(f"loss of {loss.label}", detail)
    if texts:
        detail = "is taken as recorded: its texts are not in the release (pass --inputs)"
        yield TAKEN.unverified("report on routers", detail)


def _build(workspace: Workspace) -> None:
    """Run the jobs that the release needs, in order, except those whose outputs an earlier run left in the folder."""
    from herdbook.plan.jobs import FILES, needed_results
    from herdbook.steps.card.step import render_card
    from herdbook.steps.machine import Machine
    from herdbook.steps.registry import STEPS
    from herdbook.steps.release.step import release as put_together

    plan, machine = workspace.plan, Machine(threads=os.cpu_count() or 1)
    taken = workspace.recorded_comparisons() if not workspace.own_inputs else None
    for job in needed_results(plan):
        readable, subject = plan, job.subject
        match subject:
            case Part() if job.rule in {"fetch", "adapter"}:
                readable, subject = workspace.readable(subject)
            case Node() if job.rule == FILES:
                workspace.first_readable(subject)
        if job.rule in {"data", "evaluate", "reference", "loss"} and not workspace.own_inputs:
            continue  # taken over, perhaps without samples; and no code of the author's tasks is run
        if not all(path.exists() for path in job.outputs):
            STEPS[job.rule](readable, subject, machine)
    render_card(
        plan, plan.layout.card_folder, taken
    )  # this job's key and the next one's are not in a release
    put_together(plan)


def _compared(workspace: Workspace, release: Release) -> Iterator[Finding]:
    """Compare the files with those of the release."""
    plan: Plan = workspace.plan
    digests = parse_sums((plan.layout.release_folder / SUMS).read_text(encoding="utf-8"), SUMS)
    equal = 0
    on_devices = Devices(plan, release).by_file()
    for name in sorted(digests.keys() | release.sums.keys()):
        ours, theirs = digests.get(name), release.sums.get(name)
        if ours == theirs:
            equal += 1
            continue
        if name.startswith(f"{LOSSES}/") and ours and theirs:
            place = disagreement(_read(plan.layout.release_folder / name), release.subject.json(name))
            if place is None:
                yield SAME.passed(
                    name, "is equal but for the last digits, which other processors round otherwise"
                )
                continue
        about = {"file": name, "expected": ours or "no such file", "found": theirs or "no such file"}
        other_devices = sorted(on_devices.get(name, ()))
        beyond = _beyond_rounding(plan, release, name) if other_devices else None
        if workspace.changed:
            detail = (
                f"is not reproduced here, but other versions made the release: {', '.join(workspace.changed)}"
            )
            yield SAME.unverified(name, detail, **about)
        elif beyond:
            yield SAME.failed(name, f"is not reproduced: {beyond}", **about)
        elif other_devices:
            detail = (
                f"is not reproduced on this CPU, but part of it was computed on {', '.join(other_devices)}, where the last "
                "digits differ"
            )
            yield SAME.unverified(name, detail, **about)
        else:
            yield SAME.failed(name, "is not reproduced", **about)
    if equal:
        yield SAME.passed(f"{equal} of {len(release.sums)} files", "are equal, byte by byte")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _beyond_rounding(plan: Plan, release: Release, name: str) -> str | None:
    """Return the first tensor of a weights file that differs by more than another device explains; None for other files."""
    parts = dict(zip(plan.released.shard_names, plan.released.parts, strict=True))
    if name not in parts:
        return None
    for tensor in parts[name].tensors:
        origin = Origin(parts[name].key, tensor.name)
        limit = (
            ROUTERS[tensor.dtype] if tensor.action == "router" else allowed(plan, origin, None, tensor.dtype)
        )
        found = distance_in_file(plan, release, origin, name)
        if found > limit:
            return f"{tensor.name} differs by {found:.1e} of its norm, and {limit:.1e} is allowed"
    return None
