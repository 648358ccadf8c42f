"""The importance matrix of a release, computed a second time from its weights and the author's texts, within a tolerance.

Another processor rounds otherwise, and a token whose two best experts are nearly equal may then reach the other one. So the
number of inputs of an expert may differ a little, and the sums as far as that explains.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from herdbook.release.subject import FolderSubject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.release.finding import Check, Finding
    from herdbook.release.reader import Release
    from herdbook.verify.rebuild.workspace import Workspace
    from herdbook.weights.imatrix import ImportanceMatrix, Inputs

ROUNDING = 1e-3  # of the norm of a tensor's sums
MOVED = 0.01  # of the tokens that reached an expert, and two more


def imatrix(workspace: Workspace, release: Release, check: Check) -> Iterator[Finding]:
    """Compute the importance matrix again, and compare it."""
    item = workspace.plan.imatrix
    if item is None:
        return
    if not workspace.own_inputs and not item.commit:
        what = "the file that it was made from is" if item.given else "its texts are"
        yield check.unverified(item.file, f"is taken as recorded: {what} not in the release (pass --inputs)")
        return
    if not isinstance(release.subject, FolderSubject):
        yield check.unverified(
            item.file, "is taken as recorded: it is computed again for a release in a folder only"
        )
        return
    workspace.code.require_installed(item.code)
    from herdbook.steps.imatrix.step import made
    from herdbook.weights.imatrix import read_imatrix

    folder = release.subject.folder
    theirs = read_imatrix(folder / item.file)
    ours, _, _ = made(workspace.plan, item, folder, os.cpu_count() or 1)
    wrong = list(differing(ours, theirs))
    for name, detail in wrong[:10]:
        yield check.failed(item.file, f"tensor {name} {detail}", file=item.file, tensor=name)
    if not wrong:
        yield check.passed(
            item.file,
            f"{len(ours.inputs)} tensors are as they come out here, within the tolerance",
            file=item.file,
        )


def differing(ours: ImportanceMatrix, theirs: ImportanceMatrix) -> Iterator[tuple[str, str]]:
    """Yield the tensors in which a matrix differs by more than rounding explains, and how."""
    for name in sorted(ours.inputs.keys() | theirs.inputs.keys()):
        one, other = ours.inputs.get(name), theirs.inputs.get(name)
        if one is None or other is None or one.sums.shape != other.sums.shape:
            yield name, "is missing, or has another shape"
        elif detail := _difference(one, other):
            yield name, detail


def _difference(ours: Inputs, theirs: Inputs) -> str | None:
    moved = np.abs(ours.counts - theirs.counts)
    if (moved > 2 + MOVED * ours.counts).any():
        expert = int(moved.argmax())
        return f"counts {int(theirs.counts[expert])} inputs of expert {expert + 1}; {int(ours.counts[expert])} came out here"
    for expert, count in enumerate(ours.counts):
        norm = float(np.linalg.norm(ours.sums[expert]))
        distance = float(np.linalg.norm(ours.sums[expert] - theirs.sums[expert]))
        allowed = ROUNDING + 4 * float(moved[expert]) / max(1.0, float(count))
        if distance > allowed * max(norm, 1e-30):
            return f"differs by {distance / max(norm, 1e-30):.1e} of its norm; {allowed:.1e} is allowed"
    return None
