"""Export a release as an RO-Crate for workflow registries, in a folder or a zip file."""

from __future__ import annotations

import hashlib
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote

from herdbook import hub
from herdbook.errors import DigestMismatchError, StepError, VerificationError
from herdbook.export.crate import METADATA, File, crate, named_by_digest
from herdbook.files import CHUNK_BYTES, atomic_writer, dump_json
from herdbook.layout import CLAIMS, OUTSIDE_SUMS, SUMS, is_large
from herdbook.plan.code import as_recorded
from herdbook.plan.edition import Edition
from herdbook.publish.claims import publications
from herdbook.release.hub_subject import HubSubject
from herdbook.release.places import unlisted
from herdbook.release.reader import Release, damaged
from herdbook.sources import purl
from herdbook.verify.claims import recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from herdbook.release.subject import Subject

    Sink = Callable[[str], AbstractContextManager[BinaryIO]]

EARLIEST = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip; ours record no time


def pack(subject: Subject, to: Path, published: str) -> tuple[int, int, list[str]]:
    """Write the crate of a release: the metadata, and its own files except weights, which the metadata refers to.

    Args:
        subject: The release.
        to: A new folder, or a file whose name ends in .zip.
        published: The day of publication, ISO 8601, since a release contains no times.

    Returns:
        The number of files in the crate, that of weights files that it refers to, and a line about each place or file that
        the release does not list.

    Raises:
        DigestMismatchError: If a file of the release does not have the digest in its checksums.
        StepError: If the destination exists and is not an empty folder, or the release has quantized files only.
        VerificationError: If the release is damaged.
    """
    release = Release(subject)
    if METADATA in release.sums:
        raise VerificationError(f"{SUMS}: lists {METADATA}, which is reserved for the crate")
    if release.edition is Edition.GGUF:
        raise StepError(
            f"{subject.name}: has quantized files only; export the release that they were made from: {release.recipe.release.repo}"
        )
    files = _files(release)
    build = recorded(release)
    with as_recorded(build.code), damaged("the release's own files"):
        metadata = crate(build.plan(release), files, subject.json, published)
    included = sorted(name for name, file in files.items() if file.place is None)
    with _open(to) as sink:
        for name in included:
            _copy(subject, name, files[name].sha256, sink)
        with sink(METADATA) as file:
            file.write(dump_json(metadata).encode())
    found = unlisted(release)
    left_out = [*found.ignored, *(f"{name}: left out, not listed in {SUMS}" for name in found.others)]
    return len(included), len(files) - len(included), left_out


def _files(release: Release) -> dict[str, File]:
    """Return all files of a release. Large files are not read: their digests are those in the checksums."""
    subject = release.subject
    digests = release.sums | {
        name: subject.digest(name) for name in sorted(OUTSIDE_SUMS) if name in subject.files
    }
    base_url = _web(release, digests)
    files = {}
    for name, sha256 in digests.items():
        if name not in subject.files:
            raise VerificationError(f"{name}: is missing")
        entry = subject.files[name]
        if entry.sha256 not in {None, sha256}:
            raise DigestMismatchError(name, sha256, str(entry.sha256))
        location = None
        if is_large(name):
            location = f"{base_url}/{quote(name)}" if base_url else named_by_digest(sha256)
        files[name] = File(entry.size_bytes, sha256, location)
    return files


def _web(release: Release, digests: dict[str, str]) -> str | None:
    """Return the base URL of a release's files: of the commit that was opened, or of the one that its claims name."""
    subject = release.subject
    commit = None
    if isinstance(subject, HubSubject):
        commit = purl.HubCommit(subject.repo, subject.commit, str(hub.client().endpoint))
    elif CLAIMS in subject.files:
        content = "\n".join(release.claims).encode()
        for published, _ in publications(content, digests):
            commit = purl.parse(published) or commit
    return f"{commit.endpoint.rstrip('/')}/{commit.repo}/resolve/{commit.commit}" if commit else None


def _copy(subject: Subject, name: str, expected: str, sink: Sink) -> None:
    """Copy a file into the crate, in pieces. Raises DigestMismatchError if it does not have the expected digest."""
    size, digest = subject.files[name].size_bytes, hashlib.sha256()
    with sink(name) as file:
        for start in range(0, size, CHUNK_BYTES):
            piece = subject.read_range(name, start, min(size, start + CHUNK_BYTES))
            digest.update(piece)
            file.write(piece)
        if digest.hexdigest() != expected:
            raise DigestMismatchError(name, expected, digest.hexdigest(), f"{SUMS} does not fit the release.")


@contextmanager
def _open(path: Path) -> Iterator[Sink]:
    """Open a new folder or zip file for writing files into it, one after the other.

    Raises:
        StepError: If the destination exists and is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StepError(f"{path}: exists; choose a new name, for a folder or ending in .zip")
    if path.suffix == ".zip":
        with atomic_writer(path) as file, zipfile.ZipFile(file, "w") as archive:
            yield lambda name: _zipped(archive, name)
    else:
        yield lambda name: atomic_writer(path / name)


@contextmanager
def _zipped(archive: zipfile.ZipFile, name: str) -> Iterator[BinaryIO]:
    # no byte may depend on the clock, or on this machine's file modes and compressor
    about = zipfile.ZipInfo(name, EARLIEST)
    about.create_system = 3
    about.external_attr = 0o100644 << 16
    with archive.open(about, "w") as file:
        yield cast("BinaryIO", file)
