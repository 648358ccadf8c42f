"""What the local Hub holds: repositories with commits, branches and tags. Commit ids follow from the content alone."""

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
    from collections.abc import Iterator, Mapping

KEEPER = "keeper"  # the account that may do everything
PIECE_BYTES = 1 << 16
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".model", ".npz")
LFS_BYTES = 10 * 1024 * 1024  # larger files go to LFS whatever they are called


def is_large(name: str, size_bytes: int) -> bool:
    """Return whether a file goes to LFS: because of its name, or because of its size."""
    return name.endswith(LFS_SUFFIXES) or size_bytes > LFS_BYTES


def repo_key(kind: str, name: str) -> str:
    """Return the name of a repository in ``Store.repos``; ``kind`` is ``dataset(s)``, or anything else for a model."""
    return f"datasets/{name}" if kind in {"dataset", "datasets"} else name


@dataclass(frozen=True)
class OnDisk:
    """Content that lies in a file, of any size: it is read when it is asked for, and never as a whole.

    Args:
        path: The file.
        sha256: Its digest, if it need not be computed: of a file of holes, any will do.
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
        """Return the blob of a file; whether it goes to LFS is told by its name and size, as on the Hub."""
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
        """What git has in place of a large file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size_bytes}\n".encode()

    @cached_property
    def git_id(self) -> str:
        """The id that git gives to what it holds: of a large file, the pointer."""
        stored = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        """What the Hub calls the content."""
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

    ``gated`` keeps a repository's files, but not its description, from those who have no access; ``private`` hides it.
    """

    name: str
    card: dict[str, Any] = field(default_factory=dict)
    private: bool = False
    gated: Literal["auto", "manual", False] = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

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
        return self._made(parent, title, state, branch)

    def squash(self, branch: str = "main", title: str = "Super-squash branch 'main'") -> str:
        """Replace a branch's commits by one; the old ones are gone, unless another branch or a tag holds them."""
        state = self.commits[self.branches[branch]].files
        oid = self._made(None, title, dict(state), branch)
        held = [*self.branches.values(), *self.tags.values()]
        self.commits = {one.oid: one for head in held for one in self.history(self.commits[head])}
        return oid

    def _made(self, parent: str | None, title: str, state: dict[str, Blob], branch: str) -> str:
        about = [self.name, parent, title, sorted((name, blob.git_id) for name, blob in state.items())]
        oid = hashlib.sha1(json.dumps(about).encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, state)
        self.branches[branch] = oid
        return oid

    def find(self, revision: str) -> Commit | None:
        """Return the commit that a branch, a tag or a commit's id stands for."""
        short = re.sub(r"^refs/(heads|tags)/", "", revision)
        return self.commits.get(self.branches.get(short) or self.tags.get(short) or revision)

    def history(self, commit: Commit) -> list[Commit]:
        """Return a commit and those before it, newest first."""
        found = [commit]
        while found[-1].parent:
            found.append(self.commits[found[-1].parent])
        return found


class Store:
    """Repositories by name, the contents of large files, and who may do what with them.

    Attributes:
        token: Of the account ``keeper``, which may read everything, and write under its own name and those in ``orgs``.
        reader: Another token of the same account, for reading alone.
        stranger: Token of somebody who is logged in but has been given access to nothing private or gated.
        accounts: Name and role by token.
        orgs: The organizations that ``keeper`` may write to.
        repos: What there is, by name; a data set's begins with ``datasets/``.
        lfs: Contents of large files by SHA-256; to be altered by tests of what is damaged.
        moved: Repositories' former names, and what they are called now.
        page_size: Entries on one page of a listing; None for no pages.
        writing: Held by who writes, one at a time, so that a commit is made whole or not at all.
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
        self.writing = threading.Lock()

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
            repo_type: What it is a repository of.
            license: What its description says.
            base_model: Likewise.
            private: Whether it is hidden from all but ``keeper``.
            gated: Whether its files are kept from all but ``keeper``.
        """
        key = repo_key(repo_type, name)
        card = {"license": license, "base_model": base_model}
        card = {key: value for key, value in card.items() if value is not None}
        self.repos[key] = Repo(name, card, private, gated)
        return self.commit(key, files, title="initial commit")

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

    def tag(self, name: str, tag: str, revision: str = "main") -> None:
        """Tag a revision of a repository."""
        found = self.repos[name].find(revision)
        if found is None:
            raise KeyError(revision)
        self.repos[name].tags[tag] = found.oid
