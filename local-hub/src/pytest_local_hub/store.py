"""The content of the local Hub: repositories with commits, branches and tags. Commit ids depend only on the content."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

KEEPER = "keeper"  # the account that may do everything
PIECE_BYTES = 1 << 16
LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".model", ".npz")
LFS_BYTES = 10 * 1024 * 1024  # larger files go to LFS, whatever their name


def is_large(name: str, size_bytes: int) -> bool:
    """Return whether a file goes to LFS: because of its name, or because of its size."""
    return name.endswith(LFS_SUFFIXES) or size_bytes > LFS_BYTES


def repo_key(kind: str, name: str) -> str:
    """Return the name of a repository in ``Store.repos``; ``kind`` is ``dataset(s)``, or anything else for a model."""
    return f"datasets/{name}" if kind in {"dataset", "datasets"} else name


@dataclass(frozen=True)
class OnDisk:
    """Content in a file of any size: it is read in pieces when it is requested.

    Args:
        path: The file.
        sha256: Its digest, if it need not be computed; a sparse file may have any digest.
    """

    path: Path
    sha256: str | None = None


Content = bytes | Path | OnDisk


@dataclass(frozen=True)
class Blob:
    """A file's content and the ids that the Hub gives to it."""

    source: bytes | OnDisk
    lfs: bool

    @classmethod
    def of(cls, name: str, content: Content) -> Blob:
        """Return the blob of a file; its name and size decide whether it goes to LFS, as on the Hub."""
        source = OnDisk(content) if isinstance(content, Path) else content
        blob = cls(source, lfs=True)
        return blob if is_large(name, blob.size_bytes) else cls(source, lfs=False)

    @cached_property
    def size_bytes(self) -> int:
        """Its size."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.path.stat().st_size

    @property
    def content(self) -> bytes:
        """All of it."""
        return self.source if isinstance(self.source, bytes) else self.source.path.read_bytes()

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to ``stop``."""
        if isinstance(self.source, bytes):
            for begin in range(start, stop, PIECE_BYTES):
                yield self.source[begin : min(stop, begin + PIECE_BYTES)]
            return
        with self.source.path.open("rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(PIECE_BYTES, stop - start))):
                start += len(piece)
                yield piece

    @cached_property
    def sha256(self) -> str:
        """Its SHA-256, as hexadecimal digits."""
        if isinstance(self.source, OnDisk) and self.source.sha256:
            return self.source.sha256
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.size_bytes):
            digest.update(piece)
        return digest.hexdigest()

    @property
    def pointer(self) -> bytes:
        """The pointer file that git stores in place of a large file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size_bytes}\n".encode()

    @cached_property
    def git_id(self) -> str:
        """Git's id of the stored content: for a large file, of the pointer."""
        stored = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        """The Hub's entity tag of the content."""
        return self.sha256 if self.lfs else self.git_id


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    oid: str
    parent: str | None
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    """A repository.

    ``card`` is the card in its description. On the Hub it follows the card; here a test can make it differ.
    ``gated`` restricts a repository's files, but not its description, to accounts with access; ``private`` hides it.
    """

    name: str
    card: dict[str, Any] = field(default_factory=dict)
    private: bool = False
    gated: Literal["auto", "manual", False] = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, str] = field(default_factory=dict)
    converts: dict[str, str] = field(default_factory=dict)

    def commit(
        self, files: Mapping[str, Content | Blob | None], branch: str = "main", title: str = "commit"
    ) -> str:
        """Add, replace or, where the content is None, delete files on a branch; return the new commit's id."""
        parent = self.branches.get(branch) or self.branches.get("main")
        state = dict(self.commits[parent].files) if parent else {}
        for name, content in files.items():
            if content is None:
                del state[name]
            else:
                state[name] = content if isinstance(content, Blob) else Blob.of(name, content)
        return self._add_commit(parent, title, state, branch)

    def propose(self, files: Mapping[str, Content | Blob | None], title: str = "proposal") -> str:
        """Open a pull request on the main branch, and return its commit's id; its number is the next one."""
        number = str(len(self.pull_requests) + 1)
        oid = self.commit(files, f"refs/pr/{number}", title)
        self.pull_requests[number] = self.branches.pop(f"refs/pr/{number}")
        return oid

    def convert(self, files: Mapping[str, Content | Blob]) -> str:
        """Add a data set's conversion to Parquet, ``configuration/split/0000.parquet``, as the Hub's bot does; return its commit."""
        state = {
            name: content if isinstance(content, Blob) else Blob.of(name, content)
            for name, content in files.items()
        }
        oid = self._add_commit(None, "Update parquet files", state, "refs/convert/parquet")
        self.converts["parquet"] = self.branches.pop("refs/convert/parquet")
        return oid

    def squash(self, branch: str = "main", title: str = "Super-squash branch 'main'") -> str:
        """Replace a branch's commits by one; the old ones are removed, unless another branch or a tag leads to them."""
        state = self.commits[self.branches[branch]].files
        oid = self._add_commit(None, title, dict(state), branch)
        heads = [
            *self.branches.values(),
            *self.tags.values(),
            *self.pull_requests.values(),
            *self.converts.values(),
        ]
        self.commits = {commit.oid: commit for head in heads for commit in self.history(self.commits[head])}
        return oid

    def _add_commit(self, parent: str | None, title: str, state: dict[str, Blob], branch: str) -> str:
        about = [self.name, parent, title, sorted((name, blob.git_id) for name, blob in state.items())]
        oid = hashlib.sha1(json.dumps(about).encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, state)
        self.branches[branch] = oid
        return oid

    def find(self, revision: str) -> Commit | None:
        """Return the commit that a branch, a tag, a pull request or a commit's id refers to."""
        for group, refs in (("refs/pr/", self.pull_requests), ("refs/convert/", self.converts)):
            if revision.startswith(group):
                return self.commits.get(refs.get(revision.removeprefix(group), ""))
        short = re.sub(r"^refs/(heads|tags)/", "", revision)
        return self.commits.get(self.branches.get(short) or self.tags.get(short) or revision)

    def history(self, commit: Commit) -> list[Commit]:
        """Return a commit and those before it, newest first."""
        commits = [commit]
        while commits[-1].parent:
            commits.append(self.commits[commits[-1].parent])
        return commits


class Store:
    """Repositories by name, the contents of large files, and permissions.

    Attributes:
        token: Token of the account ``keeper``, which may read everything, and write under its own name and those in ``orgs``.
        reader: A read-only token of the same account.
        stranger: Token of an account without access to anything private or gated.
        accounts: Name and role by token.
        orgs: The organizations that ``keeper`` may write to.
        repos: Repositories by name; the name of a data set begins with ``datasets/``.
        lfs: Contents of large files by SHA-256; tests may damage them.
        moved: Current names of repositories by former name.
        page_size: Entries on one page of a listing; None for no pages.
        publishers: Trusted publishers by resource (``owner/name``): whether an identity token is one of theirs.
        lifetime_s: Seconds for which a token of a trusted publisher is announced to be valid; it is until ``expire``.
        scopes: The repository that a token of a trusted publisher may write, by token.
        writing: Lock for writing, so that a commit is made as a whole or not at all.
    """

    token = "hf_keeperkeeperkeeper"  # noqa: S105 - opens nothing but this
    reader = "hf_readerreaderreader"
    stranger = "hf_strangerstranger"

    def __init__(self) -> None:
        self.accounts = {
            self.token: (KEEPER, "write"),
            self.reader: (KEEPER, "read"),
            self.stranger: ("stranger", "write"),
        }
        self.orgs: set[str] = set()
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, Blob] = {}
        self.moved: dict[str, str] = {}
        self.page_size: int | None = None
        self.publishers: dict[str, Callable[[str], bool]] = {}
        self.lifetime_s = 3600
        self.scopes: dict[str, str] = {}
        self._issued = 0
        self.writing = threading.Lock()

    def issue(self, resource: str) -> str:
        """Return a new token that may write one repository, and do nothing else."""
        with self.writing:
            self._issued += 1
            token = f"hf_jwt_eyJhbGciOiJub25lIn0.issued-{self._issued:032}.signature-{self._issued:032}"
            self.accounts[token] = ("[OIDC]", "write")
            self.scopes[token] = resource
        return token

    def expire(self) -> None:
        """Let all tokens of trusted publishers expire."""
        for token in self.scopes:
            self.accounts.pop(token, None)

    def add_repo(
        self,
        name: str,
        files: Mapping[str, Content],
        *,
        repo_type: Literal["model", "dataset"] = "model",
        license: str | list[str] | None = None,  # noqa: A002 - as in a card
        base_model: str | list[str] | None = None,
        private: bool = False,
        gated: Literal["auto", "manual", False] = False,
    ) -> str:
        """Make a repository with one commit on its main branch, and return that commit's id.

        Args:
            name: ``owner/name``.
            files: Contents by name: bytes, a path, or ``OnDisk`` with a digest that need not be computed.
            repo_type: The kind of repository.
            license: The license in its card, and in its description.
            base_model: The base model in its card, and in its description.
            private: Whether it is visible only to ``keeper``.
            gated: Whether only ``keeper`` may read its files.
        """
        key = repo_key(repo_type, name)
        card = {"license": license, "base_model": base_model}
        card = {key: value for key, value in card.items() if value is not None}
        self.repos[key] = Repo(name, card, private, gated)
        return self.commit(key, {**files, **_card(files.get("README.md", b""), card)}, title="initial commit")

    def commit(
        self,
        name: str,
        files: Mapping[str, Content | Blob | None],
        branch: str = "main",
        title: str = "commit",
    ) -> str:
        """Change files of a repository (None deletes one), and return the new commit's id."""
        oid = self.repos[name].commit(files, branch, title)
        for blob in self.repos[name].commits[oid].files.values():
            if blob.lfs:
                self.lfs.setdefault(blob.sha256, blob)
        return oid

    def convert(self, name: str, files: Mapping[str, Content | Blob]) -> str:
        """Add the conversion of a data set to Parquet, which is at ``refs/convert/parquet``; return its commit's id."""
        oid = self.repos[name].convert(files)
        for blob in self.repos[name].commits[oid].files.values():
            if blob.lfs:
                self.lfs.setdefault(blob.sha256, blob)
        return oid

    def tag(self, name: str, tag: str, revision: str = "main") -> None:
        """Tag a revision of a repository."""
        commit = self.repos[name].find(revision)
        if commit is None:
            raise KeyError(revision)
        self.repos[name].tags[tag] = commit.oid


def _card(text: Content, entries: Mapping[str, Any]) -> dict[str, Content]:
    """Return a card with front matter, by its name; nothing without entries. JSON is YAML, too."""
    if not entries or not isinstance(text, bytes):
        return {}
    return {"README.md": b"---\n" + json.dumps(dict(entries)).encode() + b"\n---\n" + text}
