"""What the local Hub holds: repositories with commits, branches and tags. Commit ids follow from the content alone."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PIECE_BYTES = 1 << 16
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".model", ".npz")
LFS_BYTES = 10 * 1024 * 1024  # larger files go to LFS whatever they are called


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
        return blob if name.endswith(LFS_SUFFIXES) or blob.size_bytes > LFS_BYTES else cls(source, lfs=False)

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
    card: dict = field(default_factory=dict)
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
