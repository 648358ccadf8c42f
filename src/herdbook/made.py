"""What each job made: the digests of its small files, noted when they are made, so that a change by hand is not released.

A card or a measurement that a person has edited is as well-formed as before, and what is made from it is consistent with it:
nothing else in a build would find the change. Weights need no note, since their records have their digests.

A file without a note is accepted: an earlier version made it, or its job was interrupted between the file and the note.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook import jsonio, limits
from herdbook.errors import StepError
from herdbook.files import sha256_file, write_json
from herdbook.layout import is_large
from herdbook.plan.jobs import DATA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from herdbook.layout import Layout
    from herdbook.plan.job import Job

STATES = ".npy"  # what a model predicts: large, and in no release


def forget(layout: Layout, job: Job) -> None:
    """Remove the note of a job, which is about to make its files again."""
    layout.made(job.rule, job.id).unlink(missing_ok=True)


def note(layout: Layout, job: Job) -> None:
    """Note the digests of what a job has just made."""
    note_digests(
        layout,
        job,
        {path: sha256_file(path) for path in job.outputs if _is_noted(job, path) and path.exists()},
    )


def note_digests(layout: Layout, job: Job, digests: Mapping[Path, str]) -> None:
    """Note digests of a job's files that are known, such as those of a cache.

    Args:
        layout: The paths of the results.
        job: The job.
        digests: SHA-256 of its files, by path; those of large files are left out.
    """
    files = {_name(layout, path): sha256 for path, sha256 in digests.items() if _is_noted(job, path)}
    if files:
        write_json(layout.made(job.rule, job.id), {"key": job.key, "files": files})


@dataclass(frozen=True)
class Edited:
    """A file that is not as its job left it.

    Args:
        path: The file.
        job: The job.
        expected: The digest that the job noted.
        found: The digest that it has.
    """

    path: Path
    job: Job
    expected: str
    found: str

    @property
    def text(self) -> str:
        """That it was changed, for a message."""
        return f"{self.path}: was changed after `{self.job.name}` made it"


def edited(layout: Layout, jobs: Iterable[Job], paths: Iterable[Path]) -> list[Edited]:
    """Return the files that are not as the jobs that made them left them.

    Args:
        layout: The paths of the results.
        jobs: The jobs of the plan.
        paths: The files; those that are missing, and those that no job makes, are not looked at.
    """
    makers = {path: job for job in jobs for path in job.outputs}
    notes: dict[Job, dict[str, str]] = {}
    changed = []
    for path in paths:
        job = makers.get(path)
        if job is None or not _is_noted(job, path) or not path.is_file():
            continue
        if job not in notes:
            notes[job] = _read(layout, job)
        noted = notes[job].get(_name(layout, path))
        if noted and noted != (found := sha256_file(path)):
            changed.append(Edited(path, job, noted, found))
    return changed


def advice(paths: Iterable[Path]) -> str:
    """Return what to do about changed files."""
    return (
        f"Nothing is released that its steps did not make. Run `rm {shlex.join(map(str, paths))}` and build again; what should be "
        "different is changed in the recipe, or in the card's templates."
    )


def check(layout: Layout, jobs: Iterable[Job], paths: Iterable[Path]) -> None:
    """Check that files are as the jobs that made them left them.

    Args:
        layout: The paths of the results.
        jobs: The jobs of the plan.
        paths: The files, see ``edited``.

    Raises:
        StepError: If some were changed; each is named, with its job.
    """
    if changed := edited(layout, jobs, paths):
        lines = [f"{one.text}: expected sha256 {one.expected}, found {one.found}" for one in changed]
        raise StepError("\n".join([*lines, advice(one.path for one in changed)]))


def _is_noted(job: Job, path: Path) -> bool:
    return job.rule != DATA and not is_large(path.name) and path.suffix != STATES


def _name(layout: Layout, path: Path) -> str:
    return path.relative_to(layout.root).as_posix()


def _read(layout: Layout, job: Job) -> dict[str, str]:
    """Return the noted digests of a job's files, by path below the results; none if there is no note of this job."""
    path = layout.made(job.rule, job.id)
    if not path.is_file():
        return {}
    try:
        noted = jsonio.load_object(path.read_bytes(), limits.DOCUMENT)
        files = {str(name): str(sha256) for name, sha256 in noted["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return files if noted.get("key") == job.key else {}
