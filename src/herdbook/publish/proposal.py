"""What publishing would change: the exact commit, as a function of the release and of what is there already.

Only what an earlier release of Herdbook put there, and left as it was, is ever deleted. All else that is there stays.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook import __version__
from herdbook.errors import VerificationError
from herdbook.layout import CLAIMS, LOCK, OUTSIDE_SUMS, RECIPE, SUMS
from herdbook.publish import claims
from herdbook.publish.local import LocalFile
from herdbook.release.sums import parse_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from herdbook.hub import RemoteFile
    from herdbook.publish.local import LocalRelease

LIMIT_BYTES = 1 << 26  # of a small file that is read to see what it says


@dataclass(frozen=True)
class RemoteState:
    """What a place holds.

    Args:
        head: The commit that this is, on the Hub; None if there is no repository yet, or in a folder.
        files: Its files by name.
        read: Returns the content of one of them, up to a limit in bytes.
    """

    head: str | None
    files: Mapping[str, RemoteFile]
    read: Callable[[str, int], bytes]


@dataclass(frozen=True)
class Proposal:
    """A change of what is there.

    Args:
        parent: The commit that it starts from.
        message: What the commit says in one line.
        about: What it says below.
        new: Files that are not there yet.
        changed: Files that are there with another content.
        unchanged: Files that are there already.
        deleted: Files of an earlier release that are in this one no more.
        kept: Files that no release of Herdbook put there, or that were changed since.
        upload_bytes: Bytes to send at most: of contents that are not there under any name.
    """

    parent: str | None
    message: str
    about: str
    new: tuple[LocalFile, ...]
    changed: tuple[LocalFile, ...]
    unchanged: tuple[LocalFile, ...]
    deleted: tuple[RemoteFile, ...]
    kept: tuple[RemoteFile, ...]
    upload_bytes: int

    @property
    def is_empty(self) -> bool:
        """Whether everything is there as it should be."""
        return not (self.new or self.changed or self.deleted)

    @property
    def written(self) -> tuple[LocalFile, ...]:
        """The files whose content is sent."""
        return (*self.new, *self.changed)

    @property
    def result(self) -> dict[str, LocalFile | RemoteFile]:
        """What will be there, by name."""
        ours: dict[str, LocalFile | RemoteFile] = {
            file.name: file for file in (*self.written, *self.unchanged)
        }
        return ours | {file.name: file for file in self.kept}


def propose(release: LocalRelease, there: RemoteState) -> Proposal:
    """Return what has to change so that a place holds a release.

    Raises:
        VerificationError: If the claims that are there are too many to be read.
    """
    files = dict(release.files)
    if CLAIMS in there.files:
        mine = release.files[CLAIMS].content if CLAIMS in files else b""
        merged = claims.merge(
            mine if isinstance(mine, bytes) else mine.read_bytes(),
            there.read(CLAIMS, LIMIT_BYTES),
            release.digests,
        )
        files[CLAIMS] = LocalFile.of(CLAIMS, merged)
    owned = _owned(there, files)
    contents = {file.sha256 for file in there.files.values() if file.sha256}
    ordered = [files[name] for name in sorted(files)]
    new = tuple(file for file in ordered if file.name not in there.files)
    unchanged = tuple(file for file in ordered if file.is_same(there.files.get(file.name)))
    changed = tuple(file for file in ordered if file not in new and file not in unchanged)
    others = [there.files[name] for name in sorted(there.files.keys() - files.keys())]
    return Proposal(
        parent=there.head,
        message=f"Release {release.name}",
        about=f"sha256 of {SUMS}: {release.files[SUMS].sha256}\nPublished with Herdbook {__version__}.",
        new=new,
        changed=changed,
        unchanged=unchanged,
        deleted=tuple(file for file in others if file.name in owned),
        kept=tuple(file for file in others if file.name not in owned),
        upload_bytes=sum(
            {
                file.sha256: file.size_bytes for file in (*new, *changed) if file.sha256 not in contents
            }.values()
        ),
    )


def _owned(there: RemoteState, files: Mapping[str, LocalFile]) -> set[str]:
    """Return which files an earlier release put there, of those that are in this one no more.

    They are what its SHA256SUMS lists, if the content is still the one that is listed: what a person has edited since
    is that person's. Of small files the Hub knows no SHA-256, so these are read.
    """
    if SUMS not in there.files:
        return set()
    try:
        sums = parse_sums(there.read(SUMS, LIMIT_BYTES).decode(), SUMS)
    except (VerificationError, UnicodeDecodeError):
        return set()  # another program's, then
    if not {RECIPE, LOCK} <= sums.keys():
        return set()

    def found(name: str) -> str | None:
        file = there.files[name]
        if file.sha256 or file.size_bytes > LIMIT_BYTES:
            return file.sha256
        return hashlib.sha256(there.read(name, LIMIT_BYTES)).hexdigest()

    gone = there.files.keys() - files.keys()
    return {name for name in gone & sums.keys() if found(name) == sums[name]} | (gone & OUTSIDE_SUMS)


def overwritten(proposal: Proposal, seen: RemoteState, there: RemoteState) -> list[str]:
    """Return the files that a proposal would change or delete, and that somebody has changed since a first look.

    Of claims none is lost, whoever adds some.

    Args:
        proposal: What is to be done to what is there now.
        seen: What was there at the first look.
        there: What is there now.
    """
    touched = [file.name for file in proposal.changed] + [file.name for file in proposal.deleted]
    names = set(touched) - {CLAIMS}
    return sorted(name for name in names if seen.files.get(name) != there.files[name])


def differences(expected: Mapping[str, LocalFile | RemoteFile], found: Mapping[str, RemoteFile]) -> list[str]:
    """Return how a place differs from what should be there, file by file, one line each."""
    return [
        line for name in sorted(expected.keys() | found.keys()) for line in _differs(name, expected, found)
    ]


def _differs(
    name: str, expected: Mapping[str, LocalFile | RemoteFile], found: Mapping[str, RemoteFile]
) -> Iterator[str]:
    wanted, seen = expected.get(name), found.get(name)
    if seen is None:
        yield f"{name}: is not there"
    elif wanted is None:
        yield f"{name}: should not be there"
    elif seen.size_bytes != wanted.size_bytes:
        yield f"{name}: expected {wanted.size_bytes} bytes, found {seen.size_bytes}"
    elif not (wanted.is_same(seen) if isinstance(wanted, LocalFile) else wanted == seen):
        kind = "sha256" if seen.sha256 else "git_blob"
        yield f"{name}: expected {kind} {getattr(wanted, kind)}, found {getattr(seen, kind)}"


def describe(proposal: Proposal, where: str, tag: str | None) -> str:
    """Return the commit for people, whole: all that it says, every file with its size and digest, and what follows it."""
    if proposal.is_empty:
        head = [f"no commit to {where}: it holds the release already", f"  head     {proposal.parent}"]
    else:
        message, *about = [proposal.message, *proposal.about.splitlines()]
        head = [
            f"commit to {where}",
            f"  parent   {proposal.parent or 'the one with which the Hub makes the repository'}",
            f"  message  {message}",
            *(f"           {line}" for line in about),
        ]
    after = [
        "then, unless it is there already",
        *([f"  tag      {tag}, at this commit"] if tag else []),
        f"  claim    a second commit, a line more in {CLAIMS}: published, as this commit",
    ]
    return "\n".join([*head, *changes(proposal), *after])


def changes(proposal: Proposal) -> list[str]:
    """Return what happens to each file, a line each, and the sums."""
    lines = [
        f"  {word:8} {file.name}  {file.size_bytes:,} bytes{_digest(file)}"
        for word, files in (
            ("add", proposal.new),
            ("change", proposal.changed),
            ("same", proposal.unchanged),
            ("delete", proposal.deleted),
            ("keep", proposal.kept),
        )
        for file in files
    ]
    lines.append(
        f"{len(proposal.new)} to add, {len(proposal.changed)} to change, {len(proposal.deleted)} to delete, "
        f"{len(proposal.unchanged)} already there, {len(proposal.kept)} kept that are not Herdbook's; "
        f"{proposal.upload_bytes:,} bytes to send"
    )
    return lines


def _digest(file: LocalFile | RemoteFile) -> str:
    if file.sha256:
        return f"  sha256 {file.sha256}"
    return f"  git blob {file.git_blob}" if file.git_blob else ""
