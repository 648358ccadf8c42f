"""The part of the level `upstream` about tasks that lm-eval resolves: the lock has of them what lm-eval itself makes of them.

No code of a task is run. Files of the author are read where the release has them, in a process with limits.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.errors import HerdbookError
from herdbook.layout import LOCK, input_file
from herdbook.lock.task import read_task, resolve_again
from herdbook.release.finding import Check
from herdbook.release.reader import damaged
from herdbook.verify.differences import difference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import LockedTask
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

TASKS = Check("upstream", "tasks")
DEPTH = (
    "a/b/c/d"  # of the folder with copies, so that names may lead out of it, as they may out of the recipe's
)


def check(release: Release) -> Iterator[Finding]:
    """Ask lm-eval once more what its own tasks, and files with `include`, groups or code stand for."""
    locked = {name: task for name, task in release.lock.tasks.items() if _is_resolved(release, task)}
    if not locked:
        return
    what, pinned = f"{len(locked)} tasks", release.lock.harness
    installed = ""
    with suppress(PackageNotFoundError):
        installed = metadata.version("lm_eval")
    if pinned is None or pinned.lm_eval != installed:
        named = f"lm-eval {pinned.lm_eval}" if pinned else "no version of lm-eval"
        detail = f"what lm-eval makes of them is not derived: the lock names {named}, and {installed or 'none'} is installed here"
        yield TASKS.unverified(what, detail, file=LOCK)
        return
    evaluate = release.recipe.evaluate
    with tempfile.TemporaryDirectory() as scratch:
        try:
            beside = _copies(release, locked, Path(scratch).resolve())
            again = resolve_again(locked, beside, evaluate.trust if evaluate else [])
        except (HerdbookError, OSError) as error:
            yield TASKS.error(what, error, file=LOCK)
            return
    wrong = False
    for name, theirs in locked.items():
        ours, said = (task.model_dump(mode="json", exclude={"data"}) for task in (again[name], theirs))
        if ours != said:
            wrong = True
            where, expected, found = difference(ours, said)
            detail = f"the lock says something else than lm-eval {installed}: {where}"
            yield TASKS.failed(name, detail, file=LOCK, expected=expected, found=found)
    if not wrong:
        yield TASKS.passed(what, f"have the definitions and code that lm-eval {installed} makes of them")


def _is_resolved(release: Release, task: LockedTask) -> bool:
    """Return whether lm-eval resolves a task: one of its own, or a file that is not its own definition."""
    if task.file is None:
        return True
    name = input_file(task.file.name, str(task.file.sha256))
    with damaged(name):
        return read_task(release.subject.read(name), name) is None


def _copies(release: Release, locked: dict[str, LockedTask], scratch: Path) -> Path:
    """Copy the files that tasks are made of from a release, as they lay beside the recipe; return the recipe's folder."""
    beside = scratch / DEPTH
    beside.mkdir(parents=True)
    for task in locked.values():
        for file in task.local:
            path = Path(f"{beside}/{file.name}").resolve()
            if not path.is_relative_to(scratch):
                raise HerdbookError(f"{LOCK}: {file.name} leads too far out of the recipe's folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(release.subject.read(input_file(file.name, str(file.sha256))))
    return beside
