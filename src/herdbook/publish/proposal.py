"""What publishing would change: the exact commit, as a function of the release and of the remote state.

Only unchanged files of an earlier Herdbook release are ever deleted. All other remote files are kept.
"""

from __future__ import annotations

import hashlib
import shlex
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

LIMIT_BYTES = 1 << 26  # of a small file that is read for its content


@dataclass(frozen=True)
class RemoteState:
    """The state of a repository or folder.

    Args:
        head: The current commit; None for a folder, and if the repository does not exist.
        files: Its files by name.
        read: Returns the content of a file, up to a limit in bytes.
    """

    head: str | None
    files: Mapping[str, RemoteFile]
    read: Callable[[str, int], bytes]

    def read_range(self, name: str, start: int, stop: int, /) -> bytes:
        """Return a part of a small file."""
        return self.read(name, LIMIT_BYTES)[start:stop]


@dataclass(frozen=True)
class Proposal:
    """A change of a remote state.

    Args:
        parent: The commit that it starts from.
        message: The first line of the commit message.
        about: The rest of the commit message.
        new: Files that do not exist remotely.
        changed: Files that exist remotely with other content.
        unchanged: Files that exist remotely with the same content.
        deleted: Files of an earlier release that are not in this one.
        kept: Files that are not from a Herdbook release, or were changed since.
        upload_bytes: The maximum number of bytes to send: of contents that do not exist remotely under any name.
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
        """Whether the remote state needs no change."""
        return not (self.new or self.changed or self.deleted)

    @property
    def written(self) -> tuple[LocalFile, ...]:
        """The files whose content is sent."""
        return (*self.new, *self.changed)

    @property
    def result(self) -> dict[str, LocalFile | RemoteFile]:
        """The files after the change, by name."""
        ours: dict[str, LocalFile | RemoteFile] = {
            file.name: file for file in (*self.written, *self.unchanged)
        }
        return ours | {file.name: file for file in self.kept}


def propose(release: LocalRelease, remote: RemoteState) -> Proposal:
    """Return the change after which a repository or folder contains a release.

    Raises:
        VerificationError: If the remote claims file is too large to read.
    """
    files = dict(release.files)
    if CLAIMS in remote.files:
        merged = claims.merge(
            release.files[CLAIMS].read() if CLAIMS in files else b"",
            remote.read(CLAIMS, LIMIT_BYTES),
            release.digests,
        )
        files[CLAIMS] = LocalFile.of(CLAIMS, merged)
    owned = _owned(remote, files)
    contents = {file.sha256 for file in remote.files.values() if file.sha256}
    ordered = [files[name] for name in sorted(files)]
    new = tuple(file for file in ordered if file.name not in remote.files)
    unchanged = tuple(file for file in ordered if file.is_same(remote.files.get(file.name)))
    changed = tuple(file for file in ordered if file not in new and file not in unchanged)
    others = [remote.files[name] for name in sorted(remote.files.keys() - files.keys())]
    return Proposal(
        parent=remote.head,
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


def _owned(remote: RemoteState, files: Mapping[str, LocalFile]) -> set[str]:
    """Return the remote files that an earlier release published and that are not in this one.

    They are the files in its SHA256SUMS that still have the listed content: a file that was edited since belongs to its
    editor. The Hub states no SHA-256 of small files, so these are read.
    """
    if SUMS not in remote.files:
        return set()
    try:
        sums = parse_sums(remote.read(SUMS, LIMIT_BYTES).decode(), SUMS)
    except (VerificationError, UnicodeDecodeError):
        return set()  # written by another program
    if not {RECIPE, LOCK} <= sums.keys():
        return set()

    def digest(name: str) -> str | None:
        file = remote.files[name]
        if file.sha256 or file.size_bytes > LIMIT_BYTES:
            return file.sha256
        return hashlib.sha256(remote.read(name, LIMIT_BYTES)).hexdigest()

    gone = remote.files.keys() - files.keys()
    return {name for name in gone & sums.keys() if digest(name) == sums[name]} | (gone & OUTSIDE_SUMS)


def overwritten(proposal: Proposal, seen: RemoteState, current: RemoteState) -> list[str]:
    """Return the files that a proposal would change or delete although someone changed them after the first look.

    The claims file is not among them: merging keeps all lines.

    Args:
        proposal: The change of the current state.
        seen: The state at the first look.
        current: The current state.
    """
    touched = [file.name for file in proposal.changed] + [file.name for file in proposal.deleted]
    names = set(touched) - {CLAIMS}
    return sorted(name for name in names if seen.files.get(name) != current.files[name])


def differences(
    expected: Mapping[str, LocalFile | RemoteFile], actual: Mapping[str, RemoteFile]
) -> list[str]:
    """Return the differences between the actual and the expected files, one line each."""
    return [
        line for name in sorted(expected.keys() | actual.keys()) for line in _differs(name, expected, actual)
    ]


def _differs(
    name: str, expected: Mapping[str, LocalFile | RemoteFile], actual: Mapping[str, RemoteFile]
) -> Iterator[str]:
    target, present = expected.get(name), actual.get(name)
    if present is None:
        yield f"{name}: is missing"
    elif target is None:
        yield f"{name}: is unexpected"
    elif present.size_bytes != target.size_bytes:
        yield f"{name}: expected {target.size_bytes} bytes, found {present.size_bytes}"
    elif not (target.is_same(present) if isinstance(target, LocalFile) else target == present):
        kind = "sha256" if present.sha256 else "git_blob"
        yield f"{name}: expected {kind} {getattr(target, kind)}, found {getattr(present, kind)}"


def describe(proposal: Proposal, where: str, tag: str | None) -> str:
    """Return a text about the commit: its message, every file with size and digest, and what follows the commit."""
    if proposal.is_empty:
        head = [f"no commit to {where}: it already contains the release", f"  head     {proposal.parent}"]
    else:
        message, *about = [proposal.message, *proposal.about.splitlines()]
        head = [
            f"commit to {where}",
            f"  parent   {proposal.parent or '(the initial commit of the repository)'}",
            f"  message  {message}",
            *(f"           {line}" for line in about),
        ]
    after = [
        "then, unless it exists",
        *([f"  tag      {tag}, at this commit"] if tag else []),
        f"  claim    a second commit adds a line to {CLAIMS}: published as this commit",
    ]
    return "\n".join([*head, *changes(proposal), *after])


def successor(replaced: str, repo: str) -> list[str]:
    """Return the proposal that a predecessor's card leads to the new release, which its owner may accept or not.

    Args:
        replaced: The predecessor's repository.
        repo: The release's repository.
    """
    call = f"from huggingface_hub import metadata_update as u; u({replaced!r}, {{'new_version': {repo!r}}}, create_pr=True)"
    return [
        f"the card of {replaced} does not lead here by itself: propose `new_version: {repo}` to its owner, as a pull request:",
        f"  {shlex.join(['python', '-c', call])}",
    ]


def changes(proposal: Proposal) -> list[str]:
    """Return what happens to each file, one line each, and the totals."""
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
        f"{len(proposal.unchanged)} unchanged, {len(proposal.kept)} kept that are not Herdbook's; "
        f"{proposal.upload_bytes:,} bytes to send"
    )
    return lines


def _digest(file: LocalFile | RemoteFile) -> str:
    if file.sha256:
        return f"  sha256 {file.sha256}"
    return f"  git blob {file.git_blob}" if file.git_blob else ""
