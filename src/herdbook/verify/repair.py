"""How to repair a damaged release where it was built: what to delete, so that the next build makes it again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import made
from herdbook import recipe as recipes
from herdbook.errors import CheckpointError, HerdbookError, StepError
from herdbook.files import sha256_file
from herdbook.layout import KEYED_FOLDERS, OUTSIDE_SUMS, PUBLIC_KEY, RECIPE, SIGNATURE, SUMS, Layout, is_large
from herdbook.plan.edition import editions_of, title_of
from herdbook.plan.jobs import all_jobs
from herdbook.plan.release import contents
from herdbook.release.finding import Outcome
from herdbook.release.subject import FolderSubject
from herdbook.settings import KEYLESS, SIGNING_KEY
from herdbook.settings import RECIPE as RECIPE_SETTING
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from herdbook.plan import Plan
    from herdbook.plan.job import Job
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

SHOWN = 20  # files of a command


def advice(
    release: Release, findings: Iterable[Finding], configured: Mapping[str, str], present: Iterable[Path]
) -> list[str]:
    """Return how to repair a release that failed, as lines for a terminal.

    Weights in a release are links to results, so a damaged file may be in both places: a result is to be deleted only if it is
    damaged itself.

    Args:
        release: The release.
        findings: The findings of its verification.
        configured: The settings that a build has without ``--config``, by their environment variables.
        present: The recipes of the present folder.

    Returns:
        The lines; none if it is not in the folder of its build, or no finding names a file of it.
    """
    subject = release.subject
    if not isinstance(subject, FolderSubject):
        return []
    folder = subject.folder
    results = folder.parent.parent
    failed = {each.file for each in findings if each.outcome is Outcome.FAILED and each.file}
    damaged = sorted(failed & (subject.files.keys() | release.sums.keys()))
    is_built_here = folder == Layout(results, folder.parent.name).release_folder
    if not damaged or not is_built_here or not (results / KEYED_FOLDERS[0]).is_dir():
        return []
    try:
        deleted = _damaged_results(release.make_plan(folder / RECIPE, results), damaged)
    except (HerdbookError, OSError):  # what is damaged is what a plan is made of
        deleted = {}
    # without its checksums a release is put together again
    own = {name if name in OUTSIDE_SUMS else SUMS for name in damaged}
    paths = [*deleted, *(folder / name for name in sorted(own))]
    lines = [f"{path}: is damaged, too; `{job.name}` makes it" for path, job in list(deleted.items())[:SHOWN]]
    # Snakemake's results are below the folder where it is run: a recipe that is here made only what is there.
    is_here = results.absolute().parent == Path.cwd()
    named = configured.get(RECIPE_SETTING.variable)
    default = Path(named) if named else None
    recipe = _origin(release, folder.parent.name, default, present) if is_here else None
    given = []
    if recipe is None:
        lines.append("RECIPE stands for the recipe that it was built from, which was not found here")
        given.append(f"{RECIPE_SETTING.key}=RECIPE")
    elif recipe != default:
        given.append(f"{RECIPE_SETTING.key}={recipe}")
    if release.subject.files.keys() & {SIGNATURE, PUBLIC_KEY} and not configured.get(SIGNING_KEY.variable):
        lines.append(
            f"it is signed: KEY stands for the private key that signs it again, or {KEYLESS}; without {SIGNING_KEY.key}, it will be "
            "unsigned"
        )
        given.append(f"{SIGNING_KEY.key}=KEY")
    build = shlex.join(["snakemake", "--cores", "all", *(["--config", *given] if given else [])])
    return [*lines, f"to repair it where it was built: rm {shlex.join(map(str, paths))}; {build}"]


def _origin(release: Release, name: str, default: Path | None, present: Iterable[Path]) -> Path | None:
    """Return the recipe that a release was built from; None if it is unknown.

    Args:
        release: The release.
        name: Its name.
        default: The configured recipe, which is returned if it is one of several; None if there is none.
        present: Other recipes.
    """
    paths = {path.resolve(): path for path in present if path.is_file()}
    if default and default.is_file():
        paths[default.resolve()] = default
    own = release.sums.get(RECIPE)
    found = [path for path in paths.values() if sha256_file(path) == own]
    found = found or [path for path in paths.values() if name in _titles(path)]
    if default in found:
        return default
    return found[0] if len(found) == 1 else None


def _titles(path: Path) -> set[str]:
    """Return the names of the releases that a recipe makes; none if it cannot be read."""
    try:
        recipe = recipes.load(path)
    except (HerdbookError, OSError):
        return set()
    return {title_of(recipe, edition) for edition in editions_of(recipe)}


def _damaged_results(plan: Plan, names: Sequence[str]) -> dict[Path, Job]:
    """Return the results behind files of a release that are damaged themselves, each with the job that makes it."""
    jobs = all_jobs(plan)
    makers = {path: job for job in jobs for path in job.outputs}
    records = {plan.layout.shard(part): plan.layout.record(part) for part in plan.parts.values()}
    records |= {plan.layout.quantized(item): plan.layout.quantized_record(item) for item in plan.quantized}
    if matrix := plan.imatrix:
        records[plan.layout.matrix(matrix)] = plan.layout.matrix_record(matrix)
    shards = dict(zip(plan.released.shard_names, plan.released.parts, strict=True))
    taken = contents(plan)
    found = {}
    for name in names:
        path = plan.layout.shard(shards[name]) if name in shards else taken.get(name)
        if path is None or path not in makers or not path.is_file():
            continue
        if is_large(path.name):
            is_damaged = path in records and _recorded(records[path]) != sha256_file(path)
        else:
            is_damaged = _is_changed(plan, jobs, path)
        if is_damaged:
            found[path] = makers[path]
    return found


def _recorded(record: Path) -> str | None:
    try:
        return str(read_record(record)["file"]["sha256"]) if record.is_file() else None
    except CheckpointError:
        return None


def _is_changed(plan: Plan, jobs: list[Job], path: Path) -> bool:
    try:
        made.check(plan.layout, jobs, [path])
    except StepError:
        return True
    return False
