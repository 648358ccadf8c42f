"""The same to a folder, for who has no way to the Hub: what is there is kept or replaced by the same rules."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from herdbook.errors import StepError, VerificationError
from herdbook.files import CHUNK_BYTES, atomic_writer, sha256_file
from herdbook.hub import RemoteFile
from herdbook.publish import preflight
from herdbook.publish.proposal import There, differences, propose
from herdbook.release.layout import SUMS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from herdbook.publish.local import LocalFile, Release
    from herdbook.publish.proposal import Proposal


def look(folder: Path) -> There:
    """Return what a folder holds; a folder that is not there holds nothing. Its files are hashed."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}

    def read(name: str, limit: int) -> bytes:
        if paths[name].stat().st_size > limit:
            raise StepError(f"{paths[name]}: is larger than such a file should be")
        return paths[name].read_bytes()

    files = {name: _file(name, path) for name, path in sorted(paths.items())}
    return There(None, files, read)


def preview(release: Release, folder: Path) -> tuple[Proposal, list[str]]:
    """Return what publishing to a folder would do, and what speaks against it."""
    problems = preflight.of_release(release, public=False)
    here, there = release.folder.resolve(), folder.resolve()
    if here == there or here in there.parents or there in here.parents:
        return propose(release, There(None, {}, lambda _, __: b"")), [
            *problems,
            f"{folder}: is the release's own folder, or one inside the other",
        ]
    proposal = propose(release, look(folder))
    free = shutil.disk_usage(next(path for path in (there, *there.parents) if path.exists())).free
    needed = sum(file.size_bytes for file in proposal.written)
    if needed > free:
        problems.append(f"{folder}: {needed:,} bytes are needed, {free:,} are free")
    return proposal, problems


def publish(release: Release, folder: Path) -> Proposal:
    """Bring a folder to hold a release, each file whole or not at all, and read it back.

    SHA256SUMS comes last: until then it tells, after a kill too, what of the earlier release is to be taken away.

    Raises:
        StepError: If something speaks against it; all of it at once.
        VerificationError: If the folder holds something else afterwards.
    """
    proposal, problems = preview(release, folder)
    if problems:
        raise StepError("\n".join(problems))
    if proposal.is_empty:
        return proposal
    last = [file for file in proposal.written if file.name == SUMS]
    _write(folder, [file for file in proposal.written if file.name != SUMS])
    for gone in proposal.deleted:
        (folder / gone.name).unlink(missing_ok=True)
        _tidy(folder, (folder / gone.name).parent)
    _write(folder, last)
    found = differences(proposal.result, look(folder).files)
    if found:
        raise VerificationError("\n".join(f"{folder}: {line}" for line in found) + "\nRun again.")
    return proposal


def _file(name: str, path: Path) -> RemoteFile:
    return RemoteFile(name, path.stat().st_size, sha256_file(path), None)


def _write(folder: Path, files: Iterable[LocalFile]) -> None:
    for file in files:
        path = folder / file.name
        if folder.resolve() not in path.resolve().parents:
            raise StepError(f"{path}: leads out of {folder} by a symbolic link; take the link away")
        with atomic_writer(path) as target:
            if isinstance(file.content, bytes):
                target.write(file.content)
            else:
                with file.content.open("rb") as source:
                    shutil.copyfileobj(source, target, CHUNK_BYTES)


def _tidy(folder: Path, emptied: Path) -> None:
    """Remove folders that have become empty."""
    while emptied != folder and not any(emptied.iterdir()):
        emptied.rmdir()
        emptied = emptied.parent
