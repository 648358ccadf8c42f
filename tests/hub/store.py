"""What the local Hub holds: repositories with commits, branches and tags. Commit ids follow from the content alone."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".model", ".npz")
LFS_BYTES = 10 * 1024 * 1024  # larger files go to LFS whatever they are called


@dataclass(frozen=True)
class Blob:
    """A file's content and the ids that the Hub gives to it."""

    content: bytes
    lfs: bool

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git has in place of a large file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size_bytes}\n".encode()

    @cached_property
    def git_id(self) -> str:
        stored = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
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

    def commit(self, files: dict[str, bytes | None], branch: str = "main", title: str = "commit") -> str:
        """Add, replace or, where the content is None, delete files on a branch; return the new commit's id."""
        parent = self.branches.get(branch) or self.branches.get("main")
        state = dict(self.commits[parent].files) if parent else {}
        for name, content in files.items():
            if content is None:
                del state[name]
            else:
                state[name] = Blob(content, name.endswith(LFS_SUFFIXES) or len(content) > LFS_BYTES)
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
