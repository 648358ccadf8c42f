"""Why a place that a user named is not opened as a folder or a repository: what it is, and what to name instead."""

from __future__ import annotations

import re
from pathlib import Path

from herdbook import plain

NEITHER = "is neither a folder nor owner/name or owner/name@revision"
ARCHIVES = (".zip", ".7z", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_REPO = r"(?P<repo>[\w.-]+/[\w.-]+?)(?:\.git)?"
# What people copy: the address of a page of the Hub, of a file on it, or of a program's own scheme.
_ADDRESS = re.compile(
    r"(?:hf://(?:models/)?|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|git@(?:huggingface\.co|hf\.co):)"
    rf"(?!datasets/|spaces/|api/|docs/|models/){_REPO}"
    r"(?:(?:@|/(?:tree|blob|resolve|raw|commit)/)(?P<revision>[^\s/?#@]+))?(?:[/?#]\S*)?",
    re.ASCII,
)
_SLASHED = re.compile(rf"{_REPO}/+", re.ASCII)
# The folder in which the Hub's client keeps a commit of a repository, as links to its files.
_SNAPSHOT = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})", re.ASCII)


def is_file(text: str) -> bool:
    """Return whether a text is the path of a plain file that can be seen."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def is_archive(text: str) -> bool:
    """Return whether a path is, by its name, that of an archive of files."""
    return text.lower().endswith(ARCHIVES)


def not_opened(text: str) -> str:
    """Return the message about a text that names no folder and no repository: why it is not opened."""
    return f"{text if text.strip() else repr(text)}: {_why(text)}"


def _why(text: str) -> str:
    path = Path(text)
    if not text.strip():
        return NEITHER
    try:
        if path.is_symlink() and not path.exists():
            return f"is a link to {path.readlink()}, which leads nowhere"
        what = plain.kind(path.stat())
    except (FileNotFoundError, ValueError):
        return _meant(text)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if what:
        return f"is {what}; name a folder, or owner/name on the Hub"
    if is_archive(text):
        return "is an archive; unpack it, and name the folder that it contains"
    return "is a file; name the folder that it is in"


def _meant(text: str) -> str:
    if match := _ADDRESS.fullmatch(text):
        at = f"@{match['revision']}" if match["revision"] not in {None, "main"} else ""
        return f"{NEITHER}; write {match['repo']}{at}"
    if match := _SLASHED.fullmatch(text):
        return f"{NEITHER}; if you mean a repository, write {match['repo']}"
    return NEITHER


def repository_of(folder: Path) -> str | None:
    """Return the repository, with its commit, that a folder in the cache of the Hub's client is a copy of; None if it is none."""
    match = _SNAPSHOT.search(folder.absolute().as_posix())
    return f"{match[1]}/{match[2]}@{match[3]}" if match else None
