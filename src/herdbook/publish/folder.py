"""The same to a folder, for who has no way to the Hub: what is there is kept or replaced by the same rules.

All that is new is first written beside the place and compared with the checksums. Then it is moved in: as a whole where
no folder was, file by file where one is. A kill before that leaves the place as it was, and what came whole is not
written again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from herdbook.errors import StepError, VerificationError
from herdbook.files import CHUNK_BYTES, atomic_writer, sha256_file
from herdbook.hub import RemoteFile
from herdbook.layout import SUMS
from herdbook.progress import track
from herdbook.publish import preflight
from herdbook.publish.proposal import RemoteState, propose

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from herdbook.publish.local import LocalFile, LocalRelease
    from herdbook.publish.proposal import Proposal

STAGE = ".herdbook.part"


def look(folder: Path) -> RemoteState:
    """Return what a folder holds; a folder that is not there holds nothing. Its files are hashed."""
    paths = _paths(folder)

    def read(name: str, limit: int) -> bytes:
        if paths[name].stat().st_size > limit:
            raise StepError(f"{paths[name]}: is larger than such a file should be")
        return paths[name].read_bytes()

    files = {}
    with track("hashing", len(paths)) as advance:
        for name, path in sorted(paths.items()):
            files[name] = RemoteFile(name, path.stat().st_size, sha256_file(path), None)
            advance()
    return RemoteState(None, files, read)


def preview(release: LocalRelease, folder: Path) -> tuple[Proposal, list[str]]:
    """Return what publishing to a folder would do, and what speaks against it."""
    problems = preflight.of_release(release, public=False)
    here, there = release.folder.resolve(), folder.resolve()
    if here == there or here in there.parents or there in here.parents:
        return propose(release, RemoteState(None, {}, lambda _, __: b"")), [
            *problems,
            f"{folder}: is the release's own folder, or one inside the other",
        ]
    proposal = propose(release, look(folder))
    for file in proposal.written:
        path = folder / file.name
        if there not in path.resolve().parents and not path.is_symlink():
            problems.append(f"{path}: leads out of {folder} by a symbolic link; take the link away")
    free = shutil.disk_usage(next(path for path in (there, *there.parents) if path.exists())).free
    staged = sum(path.stat().st_size for path in _paths(_stage(folder)).values())
    needed = sum(file.size_bytes for file in proposal.written) - staged
    if needed > free:
        problems.append(f"{folder}: {needed:,} bytes are needed, {free:,} are free")
    return proposal, problems


def publish(release: LocalRelease, folder: Path) -> Proposal:
    """Bring a folder to hold a release.

    Raises:
        StepError: If something speaks against it (all of it at once), or somebody else does the same just now.
        VerificationError: If what was written is something else than the release.
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
    found = {name: path.stat().st_size for name, path in _paths(folder).items()}
    if found != expected:
        names = ", ".join(sorted({name for name, _ in expected.items() ^ found.items()}))
        raise VerificationError(f"{folder}: was changed by somebody else meanwhile: {names}. Run again.")
    return proposal


def _stage(folder: Path) -> Path:
    """Return where new files are written first: on the same disk, since they are moved from there."""
    return folder / STAGE if folder.exists() else folder.parent / f".{folder.name}{STAGE}"


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Make the folder for new files, hold it against others, and remove it if it is empty afterwards."""
    stage = _stage(folder)
    stage.mkdir(parents=True, exist_ok=True)
    handle = os.open(stage, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every network's disk has locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StepError(f"{folder}: somebody else publishes there just now. Run again.") from None
        yield stage
    finally:
        os.close(handle)
        if stage.is_dir() and not any(stage.iterdir()):
            stage.rmdir()


def _write(stage: Path, files: tuple[LocalFile, ...]) -> None:
    """Bring the stage to hold files and nothing else, and read each back.

    Raises:
        VerificationError: If one is something else than what was written.
    """
    wanted = {file.name for file in files}
    for name, path in _paths(stage).items():
        if name not in wanted:  # an earlier run's, for another release
            path.unlink()
            _tidy(stage, path.parent)
    problems = []
    with track("writing", len(files)) as advance:
        for file in files:
            path = stage / file.name
            if not path.is_file() or sha256_file(path) != file.sha256:
                _copy(file, path)
                found = sha256_file(path)
                if found != file.sha256:
                    problems.append(f"{path}: expected sha256 {file.sha256}, found {found}")
            advance()
    if problems:
        raise VerificationError("\n".join(problems) + "\nNothing else was changed. Run again.")


def _copy(file: LocalFile, path: Path) -> None:
    with atomic_writer(path) as target:
        if isinstance(file.content, bytes):
            target.write(file.content)
        else:
            with file.content.open("rb") as source:
                shutil.copyfileobj(source, target, CHUNK_BYTES)


def _move_in(folder: Path, stage: Path, proposal: Proposal) -> None:
    """Move new files into their places, and take away what is in the release no more.

    SHA256SUMS comes last: until then it tells, after a kill too, what of the earlier release is to be taken away.
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


def _paths(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by name, without those that are not in their places yet."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if not name.startswith(f"{STAGE}/")}


def _tidy(folder: Path, emptied: Path) -> None:
    """Remove folders that have become empty."""
    while emptied != folder and not any(emptied.iterdir()):
        emptied.rmdir()
        emptied = emptied.parent
