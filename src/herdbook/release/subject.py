"""What is verified: a release in a folder or on the Hub, read through one interface. Its content is untrusted.

Every read has a limit, and a name in the release never causes a read outside of it.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from herdbook import jsonio, limits, plain
from herdbook.errors import UnverifiedError, VerificationError
from herdbook.release.unopened import not_opened
from herdbook.sources import purl
from herdbook.sources.select import check_name
from herdbook.weights.checkpoint import FIRST_BYTES, MAX_HEADER_BYTES, parse_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    from herdbook.weights.checkpoint import Span

SMALL_BYTES = 64_000_000  # of a file that is read as a whole
_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^\s@]+))?", re.ASCII)


class MissingError(VerificationError):
    """A file is missing.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: is missing")
        self.name = name


@dataclass(frozen=True)
class FileEntry:
    """What is known of a file before it is read.

    Args:
        size_bytes: Its size.
        sha256: SHA-256 of its content, if the Hub states it.
        git_blob: Git's id of its content, if the Hub states it.
    """

    size_bytes: int
    sha256: str | None = None
    git_blob: str | None = None


class Subject(Protocol):
    """Files under names: a release, or a model that one was made from.

    Attributes:
        name: Its name in messages.
        uri: A URI that always leads to the same content; empty for a folder.
        files: Its files, by name.
        odd: Names that are not plain files, with the reason why they are never opened.
        read_bytes: The number of bytes read from it so far.
    """

    name: str
    uri: str
    files: dict[str, FileEntry]
    odd: dict[str, str]
    read_bytes: int

    def entry(self, name: str) -> FileEntry:
        """Return what is known of a file. Raises MissingError, or VerificationError if it is not a plain file."""

    def read(self, name: str, limit: int = SMALL_BYTES) -> bytes:
        """Return a small file.

        Raises:
            MissingError: If it is missing.
            VerificationError: If it is larger than ``limit`` bytes.
            DigestMismatchError: If it does not have the digest that the Hub states.
            SourceError: If it cannot be read.
        """

    def json(self, name: str, limit: limits.Limit = limits.DOCUMENT) -> Any:
        """Return a small JSON file. Raises as ``read``; VerificationError if it is damaged or over the limit."""

    def counted_json(self, name: str, limit: limits.Limit) -> tuple[Any, int]:
        """Return what ``json`` returns, and how many values it has at most. Raises as ``json``."""

    def header(self, name: str) -> dict[str, Span]:
        """Return where tensors lie in a safetensors file, by name.

        Raises:
            CheckpointError: If its header is damaged, is over the limit, or does not fit the file's size.
            VerificationError: If it is missing.
            SourceError: If it cannot be read.
        """

    def header_digest(self, name: str) -> str:
        """Return the SHA-256 of what stands before the tensors of a safetensors file. Raises as ``header``."""

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return a file's bytes from ``start`` up to ``stop``, all of them. Raises as ``read``."""

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file: as the Hub states it, else by reading the file. Raises as ``read``."""


class Reading:
    """The part of the interface that folders and the Hub share: it only needs ``read_range``."""

    name: str
    files: dict[str, FileEntry]

    def __init__(self) -> None:
        self.read_bytes = 0
        self.odd: dict[str, str] = {}
        self.lock = Lock()
        self._headers: dict[str, dict[str, Span]] = {}
        self._header_digests: dict[str, str] = {}

    def read(self, name: str, limit: int = SMALL_BYTES) -> bytes:
        """Return a small file, see ``Subject``."""
        size = self.entry(name).size_bytes
        if size > limit:
            raise VerificationError(f"{name}: has {size} bytes, more than any release needs ({limit})")
        return self.read_range(name, 0, size)

    def json(self, name: str, limit: limits.Limit = limits.DOCUMENT) -> Any:
        """Return a small JSON file, see ``Subject``."""
        return self.counted_json(name, limit)[0]

    def counted_json(self, name: str, limit: limits.Limit) -> tuple[Any, int]:
        """Return a small JSON file and its values, see ``Subject``."""
        try:
            limit.check_size(self.entry(name).size_bytes)
            content = self.read(name)
            return jsonio.load(content, limit), limits.values_of(content)
        except limits.OverLimitError as error:
            raise VerificationError(f"{name}: refused: it {error}") from error
        except ValueError as error:
            raise VerificationError(f"{name}: is not valid JSON: {error}") from error

    def header(self, name: str) -> dict[str, Span]:
        """Return where tensors lie, see ``Subject``."""
        if name not in self._headers:
            size = self.entry(name).size_bytes
            head = self.read_range(name, 0, min(size, FIRST_BYTES))
            stop = 8 + int.from_bytes(head[:8], "little")
            if len(head) < stop <= min(size, 8 + MAX_HEADER_BYTES):
                head += self.read_range(name, len(head), stop)
            self._headers[name] = parse_header(head, size, name)
            self._header_digests[name] = hashlib.sha256(head[:stop]).hexdigest()
        return self._headers[name]

    def header_digest(self, name: str) -> str:
        """Return the digest of a header, see ``Subject``."""
        self.header(name)
        return self._header_digests[name]

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return a part of a file, see ``Subject``."""
        raise NotImplementedError

    def entry(self, name: str) -> FileEntry:
        """Return what is known of a file, see ``Subject``."""
        if name in self.odd:
            raise VerificationError(f"{name}: {self.odd[name]}")
        try:
            return self.files[name]
        except KeyError:
            raise MissingError(name) from None

    def count(self, size: int) -> None:
        """Count bytes that were read."""
        with self.lock:
            self.read_bytes += size


class FolderSubject(Reading):
    """A folder on this machine.

    All readings of a file are of the same content: a file that changes after the folder was listed is not read any more.

    Raises:
        UnverifiedError: If the folder does not exist.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        if not folder.is_dir():
            raise UnverifiedError(f"{folder}: no such folder")
        self.folder = folder
        self.name = str(folder)
        self.uri = ""
        self.files = {}
        self.stamps: dict[str, plain.Stamp] = {}
        for name, about in plain.walk(folder):
            if what := plain.kind(about):
                self.odd[name] = plain.refusal(what)
            else:
                self.files[name] = FileEntry(about.st_size)
                self.stamps[name] = plain.Stamp.of(about)

    @contextmanager
    def open(self, name: str) -> Iterator[BufferedReader]:
        """Open a file for reading: the one that existed when the folder was listed.

        Raises:
            MissingError: If it is missing.
            VerificationError: If it is no longer a plain file.
            UnverifiedError: If it has changed, or changes before it is closed.
        """
        self.entry(name)
        try:
            file = self.open_plain(name)
        except FileNotFoundError:
            raise MissingError(name) from None
        with file:
            self._require_same(name, file)
            yield file
            self._require_same(name, file)

    def open_plain(self, name: str) -> BufferedReader:
        """Open a file that is known to exist, whether or not it has changed. Raises as ``plain.open_file``."""
        return plain.open_file(self.folder, name)

    def _require_same(self, name: str, file: BufferedReader) -> None:
        if plain.Stamp.of(os.fstat(file.fileno())) != self.stamps[name]:
            raise UnverifiedError(
                f"{name}: has changed since {self.name} was opened. Run the command again while nothing writes to it."
            )

    def path(self, name: str) -> Path:
        """Return the path of a file for programs that open it themselves. Raises as ``open``, as of now."""
        with self.open(name):
            return self.folder / name

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return a part of a file, see ``Subject``."""
        with self.open(name) as file:
            file.seek(start)
            data = file.read(stop - start)
        if len(data) != stop - start:
            raise VerificationError(f"{name}: has no bytes {start} to {stop}")
        self.count(len(data))
        return data

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file, see ``Subject``."""
        with self.open(name) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.count(self.entry(name).size_bytes)
        return sha256


def open_subject(text: str) -> Subject:
    """Open a release that the user named: a folder, or ``owner/name`` or ``owner/name@revision`` on the Hub.

    Raises:
        UnverifiedError: If it is neither.
        GoneError: If the repository has no such revision.
        SourceError: If it cannot be read.
    """
    if _is_folder(text):
        return FolderSubject(Path(text))
    match = _repository(text)
    if match is None:
        raise UnverifiedError(not_opened(text))
    from herdbook.release.hub_subject import HubSubject

    return HubSubject(match["repo"], match["revision"])


def can_be_opened(text: str) -> bool:
    """Return whether a text is of a form that ``open_subject`` opens: a folder that exists, or a repository's name."""
    return _is_folder(text) or _repository(text) is not None


def _is_folder(text: str) -> bool:
    """Return whether a text is the path of a folder. An empty one, as of a variable that is not set, does not mean this one."""
    try:
        return bool(text.strip()) and Path(text).is_dir()
    except OSError:
        return False


def _repository(text: str) -> re.Match[str] | None:
    """Match the name of a repository. What is here is none, even if it cannot be opened: its path would be sent to the Hub."""
    return None if text.startswith(".") or _is_here(text) else _REPO.fullmatch(text)


def _is_here(text: str) -> bool:
    try:
        Path(text).lstat()
    except (FileNotFoundError, ValueError):
        return False
    except OSError:  # such as a folder that may not be searched
        return True
    return True


def open_source(uri: str) -> Subject:
    """Open a model that a release was made from, by its URI in the lock.

    Raises:
        UnverifiedError: If it cannot be read by ranges: a local folder of the author, a package.
        GoneError: If the repository no longer has the revision.
        SourceError: If it cannot be read.
    """
    if uri.startswith("folder:"):
        raise UnverifiedError(
            f"{uri}: is a local folder of the author; pass the recipe in a copy of the author's folder with --inputs"
        )
    if not uri.startswith(purl.PREFIX):
        raise UnverifiedError(f"{uri}: is not on the Hub, so others cannot read it by ranges")
    source = purl.parse(uri)
    if source is None or source.endpoint != purl.PUBLIC_HUB:  # the verifier chooses the Hub, not the release
        raise VerificationError(f"{uri}: does not name a commit")
    check_name(source.repo, uri)
    from herdbook.release.hub_subject import HubSubject

    return HubSubject(source.repo, source.commit)
