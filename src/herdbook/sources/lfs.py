"""Pointers of Git LFS: what git checks out in place of large files while Git LFS is not installed.

Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

START = b"version https://git-lfs.github.com/spec/v1\n"
ADVICE = "it is a pointer of Git LFS, not the file itself; run `git lfs pull`"


def is_pointer(content: bytes) -> bool:
    """Return whether a file is a pointer, given its content or the beginning of it."""
    return content.startswith(START)
