"""Unlisted files of a release, among them what other programs leave in a copy: a clone's `.git`, a download's cache.

Each such place may hold exactly what its program writes. Anything else in it is an unlisted file as anywhere else: these are the
first places where weights, code or links would be hidden.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from herdbook.errors import HerdbookError
from herdbook.humanize import plural
from herdbook.layout import OUTSIDE_SUMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.release.reader import Release

# The ends of names by which programs look for weights, settings and code, in any folder.
LOADED = re.compile(
    r".*\.(?:safetensors|gguf|ggml|bin|pt|pth|ckpt|pkl|pickle|h5|msgpack|onnx|npz|npy|tflite|py|pyc|so|json|jsonl|jinja|model)",
    re.DOTALL | re.IGNORECASE,
)
# Files that a repository may contain besides a release: those of the Hub, and those that no program loads. The ends of all
# names are given, since programs look for weights and code by them: `*.safetensors` finds a LICENSE.safetensors.
INERT = re.compile(
    r"\.gitignore|\.eval_results/[\w.-]+\.yaml|(?:LICENSE|NOTICE)(?:\.txt|\.md)?|.+\.(?:png|jpg|jpeg|gif|webp)",
    re.ASCII | re.DOTALL,
)
ATTRIBUTES = ".gitattributes"  # the Hub writes it into every repository
GIT = ".git"
DOWNLOADED = ".cache/huggingface"
DESKTOP = "files of macOS and Windows"

# What `git clone` and Git LFS write, hooks apart: those are programs, except for the samples, which git never runs.
_GIT = re.compile(
    r"\.git/(?:HEAD|ORIG_HEAD|FETCH_HEAD|description|index|packed-refs|shallow"
    r"|hooks/[\w-]+\.sample|info/(?:exclude|refs)"
    r"|objects/[0-9a-f]{2}/[0-9a-f]{38}|objects/pack/pack-[0-9a-f]{40}\.(?:pack|idx|rev|bitmap|promisor)"
    r"|objects/info/(?:packs|commit-graph)|(?:logs/)?refs/(?:heads|remotes|tags)/[\w./-]+|logs/HEAD"
    r"|lfs/objects/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64})",
    re.ASCII,
)
# The hooks that `git lfs pull` installs, by their whole text. Its message in quotes cannot run anything.
_HOOK = re.compile(r"\.git/hooks/(post-checkout|post-commit|post-merge|pre-push)")
_HOOK_TEXT = (
    r"#!/bin/sh\ncommand -v git-lfs >/dev/null 2>&1 \|\| "
    r'\{{ (?:echo|printf) >&2 "[^"$`]*"(?: "[^"$`]*")?; exit 2; \}}\ngit lfs {} "\$@"\n?'
)
# The settings that `git clone` and Git LFS write. Others can name programs that git runs, such as core.fsmonitor.
_SETTINGS = {
    "core": {
        "repositoryformatversion", "filemode", "bare", "logallrefupdates", "ignorecase", "precomposeunicode", "symlinks",
    },
    "remote": {"url", "fetch", "tagopt", "promisor", "partialclonefilter"},
    "branch": {"remote", "merge"},
    "lfs": {"repositoryformatversion", "access", "locksverify"},
}  # fmt: skip
# The filters that `git lfs install --local` writes, by their whole lines: they are programs.
_FILTERS = {
    "clean = git-lfs clean -- %f",
    "smudge = git-lfs smudge -- %f",
    "smudge = git-lfs smudge --skip -- %f",
    "process = git-lfs filter-process",
    "process = git-lfs filter-process --skip",
    "required = true",
}
_REQUIRED = (".git/HEAD", ".git/config")
# https://huggingface.co/docs/huggingface_hub/guides/download: one small file of metadata, and one lock, for each file
_DOWNLOADED = re.compile(r"\.cache/huggingface/(?:\.gitignore|CACHEDIR\.TAG|download/.+\.(?:metadata|lock))")
_SMALL_BYTES = 1 << 16
# The first bytes of these files, so that nothing else passes under their names.
_FORMATS = {
    r"(?:.*/)?\.DS_Store": b"\0\0\0\1Bud1",
    r"(?:.*/)?\._[^/]+": b"\0\x05\x16\x07",
    r"(?:.*/)?Thumbs\.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    r"(?:.*/)?desktop\.ini": b"",
}


class Sized(Protocol):
    """A file whose size is known."""

    @property
    def size_bytes(self) -> int:
        """Its size."""


class Copy(Protocol):
    """A copy of a release: a folder, or a repository on the Hub."""

    @property
    def files(self) -> Mapping[str, Sized]:
        """Its files, by name."""

    def read(self, name: str, limit: int, /) -> bytes:
        """Return a file of at most ``limit`` bytes."""

    def read_range(self, name: str, start: int, stop: int, /) -> bytes:
        """Return a file's bytes from ``start`` up to ``stop``."""


@dataclass(frozen=True)
class Unlisted:
    """The files of a copy of a release that its checksums do not list.

    Args:
        left: How many files other programs left, by place.
        others: The names of all other files, sorted.
    """

    left: dict[str, int]
    others: tuple[str, ...]

    @property
    def ignored(self) -> list[str]:
        """A line for each place."""
        return [f"{where}: {ignored_text(count)}" for where, count in self.left.items()]


def ignored_text(count: int) -> str:
    """Return the description of a place."""
    return f"ignored, not part of the release: {plural(count, 'file')}"


def unlisted(release: Release) -> Unlisted:
    """Sort the files that a release does not list."""
    left: Counter[str] = Counter()
    others = []
    for name in sorted(release.subject.files.keys() - release.sums.keys() - OUTSIDE_SUMS):
        if where := place(release.subject, name):
            left[where] += 1
        else:
            others.append(name)
    return Unlisted(dict(sorted(left.items())), tuple(others))


def is_accepted(copy: Copy, name: str) -> bool:
    """Return whether a file that a release does not list is no fault of a copy: no program loads it, or another program left it."""
    return INERT.fullmatch(name) is not None or place(copy, name) is not None


def place(subject: Copy, name: str) -> str | None:
    """Return the place that a file belongs to, or None if it may not be ignored.

    Args:
        subject: The copy of a release.
        name: The name of a file that the release does not list.
    """
    try:
        return _place(subject, name)
    except (HerdbookError, OSError, UnicodeDecodeError):
        return None


def _place(subject: Copy, name: str) -> str | None:
    size = subject.files[name].size_bytes
    if name == ATTRIBUTES:
        return ATTRIBUTES if size <= _SMALL_BYTES else None
    if name.startswith(f"{GIT}/"):
        whole = all(required in subject.files for required in _REQUIRED)
        if hook := _HOOK.fullmatch(name):
            text = subject.read(name, _SMALL_BYTES).decode()
            known = re.fullmatch(_HOOK_TEXT.format(hook[1]), text) is not None
        elif name == ".git/config":
            known = _is_cloned(subject.read(name, _SMALL_BYTES).decode())
        else:
            known = _GIT.fullmatch(name) is not None and not LOADED.fullmatch(name)
        return GIT if whole and known else None
    if _DOWNLOADED.fullmatch(name):
        return DOWNLOADED if size <= _SMALL_BYTES else None
    for pattern, start in _FORMATS.items():
        if re.fullmatch(pattern, name, re.DOTALL):
            head = subject.read_range(name, 0, min(size, len(start)))
            return DESKTOP if head == start and (start or size <= _SMALL_BYTES) else None
    return None


def _is_cloned(text: str) -> bool:
    """Return whether git's configuration contains only settings that a clone has. Lines of other forms are refused."""
    name, known = "", set[str]()
    for line in filter(None, map(str.strip, text.splitlines())):
        if section := re.fullmatch(r'\[([a-z]+)(?: "[^"\\]*")?\]', line):
            name, known = section[1], _SETTINGS.get(section[1], set())
        elif name == "filter" and line in _FILTERS:
            continue
        elif not (setting := re.fullmatch(r"([a-z]+)\s*=.*[^\\]", line, re.IGNORECASE)) or (
            setting[1].lower() not in known
        ):
            return False
    return True
