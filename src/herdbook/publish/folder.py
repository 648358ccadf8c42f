"""Publish to a folder, for machines without access to the Hub, by the same rules for keeping and replacing files.

New files are first written to a staging folder beside the destination and compared with the checksums. Then they are moved:
as a whole if the destination does not exist, else file by file. An interruption before that leaves the destination as it
was, and complete files in the staging folder are not written a second time.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from herdbook import flock, plain
from herdbook.errors import StepError, VerificationError
from herdbook.files import CHUNK_BYTES, atomic_writer
from herdbook.hub import RemoteFile
from herdbook.layout import SUMS
from herdbook.progress import track
from herdbook.publish import preflight
from herdbook.publish.proposal import RemoteState, propose
from herdbook.release.subject import FolderSubject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from herdbook.publish.local import LocalFile, LocalRelease
    from herdbook.publish.proposal import Proposal

STAGE = ".herdbook.part"


def look(folder: Path) -> RemoteState:
    """Return the state of a folder, with its files hashed; a missing folder is empty. Links in it are not followed."""
    if not folder.exists():
        return RemoteState(None, {}, lambda _, __: b"")
    subject = FolderSubject(folder)
    files = {}
    names = sorted(name for name in subject.files if not name.startswith(f"{STAGE}/"))
    with track("hashing", len(names)) as advance:
        for name in names:
            files[name] = RemoteFile(name, subject.files[name].size_bytes, subject.digest(name), None)
            advance()
    return RemoteState(None, files, subject.read)


def preview(release: LocalRelease, folder: Path) -> tuple[Proposal, list[str]]:
    """Return what publishing to a folder would do, and the problems that prevent it."""
    problems = preflight.of_release(release, public=False)
    source, target = release.folder.resolve(), folder.resolve()
    if source == target or source in target.parents or target in source.parents:
        return propose(release, RemoteState(None, {}, lambda _, __: b"")), [
            *problems,
            f"{folder}: is the release's own folder, or one of the two is inside the other",
        ]
    remote = look(folder)
    proposal = propose(release, remote)
    if not proposal.is_empty:
        problems += preflight.of_kept(proposal, remote, str(folder))
    for file in proposal.written:
        path = folder / file.name
        if target not in path.resolve().parents and not path.is_symlink():
            problems.append(f"{path}: leads outside {folder} through a symbolic link; remove the link")
    disk = shutil.disk_usage(next(path for path in (target, *target.parents) if path.exists()))
    staged = sum(_sizes(_stage(folder)).values())
    needed = sum(file.size_bytes for file in proposal.written) - staged
    if not disk.total:
        problems.append(
            f"{folder}: is no place for files: its file system, such as that of /proc, has no space"
        )
    elif needed > disk.free:
        problems.append(f"{folder}: needs {needed:,} bytes, but only {disk.free:,} are free")
    return proposal, problems


def publish(release: LocalRelease, folder: Path) -> Proposal:
    """Write a release to a folder.

    Raises:
        StepError: If problems prevent it (all are reported at once), or another process is publishing to the folder.
        VerificationError: If the written files are not those of the release.
    """
    proposal, problems = preview(release, folder)
    if problems:
        raise StepError("\n".join(problems))
    if proposal.is_empty and not _stage(folder).exists():
        return proposal
    with _staged(folder) as stage:
        _write(stage, proposal.written)
        if not folder.exists():
            stage.rename(folder)
        else:
            _move_in(folder, stage, proposal)
    expected = {name: file.size_bytes for name, file in proposal.result.items()}
    actual = _sizes(folder)
    if actual != expected:
        names = ", ".join(sorted({name for name, _ in expected.items() ^ actual.items()}))
        raise VerificationError(
            f"{folder}: was changed by another program in the meantime: {names}. Run the command again."
        )
    return proposal


def _stage(folder: Path) -> Path:
    """Return the staging folder: on the same disk as the destination, since files are moved from it."""
    return folder / STAGE if folder.exists() else folder.parent / f".{folder.name}{STAGE}"


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Create and lock the staging folder, and remove it afterwards if it is empty."""
    stage = _stage(folder)
    stage.mkdir(parents=True, exist_ok=True)
    handle = os.open(stage, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every network file system has locks
            try:
                flock.claim(handle)
            except BlockingIOError:
                raise StepError(
                    f"{folder}: another process is publishing to it. Run the command again later."
                ) from None
        yield stage
    finally:
        os.close(handle)
        if stage.is_dir() and not any(stage.iterdir()):
            stage.rmdir()


def _write(stage: Path, files: tuple[LocalFile, ...]) -> None:
    """Write files to the staging folder, remove all others from it, and read each file back.

    Raises:
        VerificationError: If a file differs from what was written.
    """
    names = {file.name for file in files}
    for name, about in [*plain.walk(stage)]:
        if name not in names or plain.kind(about):  # left by an earlier run for another release
            (stage / name).unlink()
            _tidy(stage, (stage / name).parent)
    problems = []
    with track("writing", len(files)) as advance:
        for file in files:
            path = stage / file.name
            if not path.exists() or plain.digest(stage, file.name) != file.sha256:
                _copy(file, path)
                actual = plain.digest(stage, file.name)
                if actual != file.sha256:
                    problems.append(f"{path}: expected sha256 {file.sha256}, found {actual}")
            advance()
    if problems:
        raise VerificationError("\n".join(problems) + "\nNo other file was changed. Run the command again.")


def _copy(file: LocalFile, path: Path) -> None:
    with atomic_writer(path) as target, file.open() as source:
        shutil.copyfileobj(source, target, CHUNK_BYTES)


def _move_in(folder: Path, stage: Path, proposal: Proposal) -> None:
    """Move new files to the destination, and remove files that are no longer in the release.

    SHA256SUMS comes last: until then, even after an interruption, it identifies the earlier release's files to remove.
    """
    names = [file.name for file in proposal.written]
    _move(folder, stage, (name for name in names if name != SUMS))
    for gone in proposal.deleted:
        (folder / gone.name).unlink(missing_ok=True)
        _tidy(folder, (folder / gone.name).parent)
    _move(folder, stage, (name for name in names if name == SUMS))


def _move(folder: Path, stage: Path, names: Iterable[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (stage / name).replace(path)
        _tidy(stage, (stage / name).parent)


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes of the plain files of a folder by name, without those in the staging folder; none if it is missing."""
    return {
        name: about.st_size
        for name, about in plain.walk(folder)
        if not plain.kind(about) and not name.startswith(f"{STAGE}/")
    }


def _tidy(folder: Path, emptied: Path) -> None:
    """Remove folders that have become empty."""
    while emptied != folder and not any(emptied.iterdir()):
        emptied.rmdir()
        emptied = emptied.parent
