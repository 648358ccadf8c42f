"""Results that no recipe refers to: of earlier keys, and of recipes that no longer exist.

Only files that the layout names are found: those with a key in their names, in the folders of the results, and folders of
releases. Links are never followed, so that nothing outside the results is listed or removed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.errors import CheckpointError
from herdbook.key import SHORT
from herdbook.layout import DECOMPOSITIONS, KEYED_FOLDERS, MADE, OF_A_RELEASE, SPENT, STATES
from herdbook.plan import Evaluation
from herdbook.plan.jobs import result_jobs
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from herdbook.plan import Plan

KEYED = re.compile(rf"(?P<id>[^.].*-[0-9a-f]{{{SHORT}}})(\..+)?", re.DOTALL)
DECOMPOSITION = re.compile(r"(?P<key>[0-9a-f]{64})\.(values|vectors)\.safetensors")
KEY = re.compile(r"[0-9a-f]{64}")
MOST_HEADER_BYTES = 1 << 20  # of a decomposition, whose header has a few entries


@dataclass(frozen=True)
class Result:
    """One result, or the files that belong together, such as a shard and its record.

    Args:
        kind: The folder that it is in, or ``release``.
        name: Its name for people.
        paths: Its files and folders.
        size_bytes: The size of all its files.
        changed: When the newest of them was written, in seconds since 1970.
    """

    kind: str
    name: str
    paths: tuple[Path, ...]
    size_bytes: int
    changed: float


def unreferenced(plans: Sequence[Plan], root: Path) -> list[Result]:
    """Return the results that none of several recipes refers to, by kind and name.

    Args:
        plans: The plans of all recipes that share the results.
        root: The results folder.
    """
    found = [
        *_keyed(plans, root),
        *_states(plans, root),
        *_decompositions(plans, root),
        *_releases(plans, root),
    ]
    return [_result(kind, name, paths) for kind, name, paths in found]


def freed_bytes(results: Iterable[Result]) -> int:
    """Return how much space the removal of results frees: a file with links elsewhere, as in a release or a cache, takes it still."""
    links: dict[tuple[int, int], list[os.stat_result]] = {}
    for result in results:
        for path in result.paths:
            for about in _files(path):
                links.setdefault((about.st_dev, about.st_ino), []).append(about)
    return sum(each[0].st_size for each in links.values() if len(each) >= each[0].st_nlink)


def remove(result: Result) -> None:
    """Remove a result. A link is removed, and not what it leads to."""
    for path in result.paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


Found = tuple[str, str, list["Path"]]


def _keyed(plans: Sequence[Plan], root: Path) -> Iterator[Found]:
    kept = {
        (folder, match["id"])
        for plan in plans
        for path in _planned(plan)
        for folder, name in [path.relative_to(plan.layout.root).parts[:2]]
        if (match := KEYED.fullmatch(name))
    }
    for folder in KEYED_FOLDERS:
        by_id: dict[str, list[Path]] = {}
        for path in _entries(root / folder):
            match = KEYED.fullmatch(path.name)
            if match and (folder, match["id"]) not in kept:
                by_id.setdefault(match["id"], []).append(path)
        for name, paths in by_id.items():
            yield folder, name, [*paths, *_notes(root, name, SPENT, MADE)]


def _notes(root: Path, name: str, *folders: str) -> list[Path]:
    """Return the notes of the jobs that made a result, or a release."""
    return [
        note
        for folder in folders
        for rule in _entries(root / folder)
        for note in _entries(rule)
        if note.stem == name
    ]


def _planned(plan: Plan) -> Iterator[Path]:
    """Yield the files that a plan names, also of jobs that have not ended."""
    for job in result_jobs(plan):
        yield from job.outputs
        if isinstance(job.subject, Evaluation):
            yield plan.layout.answers(job.subject)
    for search in plan.searches.values():
        yield plan.layout.journal(search)
        yield plan.layout.scratch(search)


def _states(plans: Sequence[Plan], root: Path) -> Iterator[Found]:
    kept = {node.key for plan in plans for node in plan.nodes.values()}
    for path in _entries(root / STATES):
        if KEY.fullmatch(path.name) and path.name not in kept:
            yield STATES, path.name, [path]


def _decompositions(plans: Sequence[Plan], root: Path) -> Iterator[Found]:
    """Yield the decompositions of matrices that no recipe has. If the record of a shard is missing, its matrices are unknown."""
    digests: set[str] = set()
    for plan in plans:
        for part in plan.parts.values():
            try:
                record = read_record(plan.layout.record(part))
            except CheckpointError:
                return
            digests |= {tensor["sha256"] for tensor in record["tensors"].values()}
    for folder in _entries(root / DECOMPOSITIONS):
        by_key: dict[str, list[Path]] = {}
        for path in _entries(folder):
            if match := DECOMPOSITION.fullmatch(path.name):
                by_key.setdefault(match["key"], []).append(path)
        for key, paths in by_key.items():
            if _matrix(folder / f"{key}.values.safetensors") not in digests:
                yield DECOMPOSITIONS, key, paths


def _matrix(path: Path) -> str:
    """Return the digest of the matrix that a decomposition is of; empty if it does not state one."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, MOST_HEADER_BYTES)))
        return str(header["__metadata__"]["tensor_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _releases(plans: Sequence[Plan], root: Path) -> Iterator[Found]:
    kept = {one.layout.release for plan in plans for one in plan.editions}
    for path in _entries(root):
        if (
            path.name in kept
            or path.name in {*KEYED_FOLDERS, STATES, DECOMPOSITIONS, SPENT, MADE}
            or path.is_symlink()
        ):
            continue
        names = {entry.name for entry in _entries(path)}
        if names & {"card", "release"} and names <= OF_A_RELEASE:
            yield "release", path.name, [path, *_notes(root, path.name, MADE)]


def _entries(folder: Path) -> list[Path]:
    """Return what a folder contains; nothing if it does not exist, or is a link to another folder."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _files(path: Path) -> Iterator[os.stat_result]:
    """Yield what the file system knows of each file at or below a path, links included and not followed."""
    if path.is_dir() and not path.is_symlink():
        for parent, _, names in os.walk(path):
            yield from (os.lstat(os.path.join(parent, name)) for name in names)  # noqa: PTH118 - of many files
    else:
        yield path.lstat()


def _result(kind: str, name: str, paths: list[Path]) -> Result:
    files = [about for path in paths for about in _files(path)]
    size = sum(about.st_size for about in files)
    changed = max((about.st_mtime for about in files), default=paths[0].lstat().st_mtime)
    return Result(kind, name, tuple(paths), size, changed)
