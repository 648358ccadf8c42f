"""A release as an RO-Crate: what registries of workflows read, in a folder or a zip file."""

from __future__ import annotations

import hashlib
import re
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote, unquote

from herdbook import hub
from herdbook.errors import DigestMismatchError, StepError, VerificationError
from herdbook.export.crate import METADATA, File, crate, named_by_digest
from herdbook.files import CHUNK_BYTES, atomic_writer, dump_json
from herdbook.layout import CLAIMS, OUTSIDE_SUMS, SUMS, is_large
from herdbook.plan.code import as_recorded
from herdbook.publish.claims import publications, purl
from herdbook.release.reader import Release, damaged
from herdbook.release.subject import HubSubject
from herdbook.verify.claims import recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from herdbook.release.subject import Subject

    Sink = Callable[[str], AbstractContextManager[BinaryIO]]

EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first day that a zip can say; ours say none
_PUBLISHED = re.compile(
    r"pkg:huggingface/(?P<repo>[\w.%-]+/[\w.%-]+)@(?P<commit>[0-9a-f]{40})(?:\?repository_url=(?P<hub>\S+))?",
    re.ASCII,
)


def pack(subject: Subject, to: Path, published: str) -> tuple[int, int]:
    """Write the crate of a release: its own files but the weights, which are referred to, and the metadata.

    Args:
        subject: The release.
        to: A new folder, or a file whose name ends in .zip.
        published: The day of publication, ISO 8601, since a release tells no times.

    Returns:
        How many files of the release the crate holds, and how many of weights it refers to.

    Raises:
        DigestMismatchError: If a file of the release is not what its checksums say.
        StepError: If there is something already.
        VerificationError: If the release is damaged.
    """
    release = Release(subject)
    if METADATA in release.sums:
        raise VerificationError(f"{SUMS}: no release has a file {METADATA}")
    files = _files(release)
    with as_recorded(recorded(release)), damaged("what the release says of itself"):
        made = crate(release.make_plan(), files, subject.json, published)
    held = sorted(name for name, file in files.items() if file.place is None)
    with _open(to) as sink:
        for name in held:
            _copy(subject, name, files[name].sha256, sink)
        with sink(METADATA) as file:
            file.write(dump_json(made).encode())
    return len(held), len(files) - len(held)


def _files(release: Release) -> dict[str, File]:
    """Return all files of a release. Large ones are not read: their digests are those of its checksums."""
    subject = release.subject
    digests = release.sums | {
        name: subject.digest(name) for name in sorted(OUTSIDE_SUMS) if name in subject.files
    }
    where = _web(release, digests)
    found = {}
    for name, sha256 in digests.items():
        if name not in subject.files:
            raise VerificationError(f"{name}: is missing")
        entry = subject.files[name]
        if entry.sha256 not in {None, sha256}:
            raise DigestMismatchError(name, sha256, str(entry.sha256))
        place = None
        if is_large(name):
            place = f"{where}/{quote(name)}" if where else named_by_digest(sha256)
        found[name] = File(entry.size_bytes, sha256, place)
    return found


def _web(release: Release, digests: dict[str, str]) -> str | None:
    """Return the web address of a release's files: of the commit that it was opened at, or that it says it is in."""
    subject = release.subject
    purls = []
    if isinstance(subject, HubSubject):
        purls = [purl(subject.repo, subject.commit, str(hub.client().endpoint))]
    elif CLAIMS in subject.files:
        content = "\n".join(release.claims).encode()
        purls = [found for found, _ in publications(content, digests)]
    for match in filter(None, map(_PUBLISHED.fullmatch, reversed(purls))):
        endpoint = unquote(match["hub"]) if match["hub"] else "https://huggingface.co"
        return f"{endpoint.rstrip('/')}/{unquote(match['repo'])}/resolve/{match['commit']}"
    return None


def _copy(subject: Subject, name: str, expected: str, sink: Sink) -> None:
    """Copy a file into the crate, in pieces. Raises DigestMismatchError if it is not what it should be."""
    size, digest = subject.files[name].size_bytes, hashlib.sha256()
    with sink(name) as file:
        for start in range(0, size, CHUNK_BYTES):
            piece = subject.read_range(name, start, min(size, start + CHUNK_BYTES))
            digest.update(piece)
            file.write(piece)
        if digest.hexdigest() != expected:
            raise DigestMismatchError(name, expected, digest.hexdigest(), f"{SUMS} does not fit the release.")


@contextmanager
def _open(place: Path) -> Iterator[Sink]:
    """Open a new folder or zip file for writing files into it, one after the other.

    Raises:
        StepError: If there is something already.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise StepError(f"{place}: exists; give a new name, of a folder or ending in .zip")
    if place.suffix == ".zip":
        with atomic_writer(place) as whole, zipfile.ZipFile(whole, "w") as archive:
            yield lambda name: _zipped(archive, name)
    else:
        yield lambda name: atomic_writer(place / name)


@contextmanager
def _zipped(archive: zipfile.ZipFile, name: str) -> Iterator[BinaryIO]:
    # neither the clock, nor this machine's modes and compressor, may decide any byte
    about = zipfile.ZipInfo(name, EARLIEST)
    about.create_system = 3
    about.external_attr = 0o100644 << 16
    with archive.open(about, "w") as file:
        yield cast("BinaryIO", file)
