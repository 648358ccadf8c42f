"""One file of a release that somebody has, such as a downloaded GGUF: is it the one that the release lists?

It is known by its content, so it may have any name. What the release says of its file then holds for this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.files import sha256_file
from herdbook.layout import SUMS
from herdbook.release.finding import Check
from herdbook.sources import lfs

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

OF = Check("files", "this file")


def check(path: Path, release: Release) -> Finding:
    """Compare a file's digest with the release's checksums.

    Args:
        path: The file.
        release: The release that it should be of.

    Raises:
        OSError: If the file cannot be read.
    """
    found = sha256_file(path)
    name = next((name for name, sha256 in sorted(release.sums.items()) if sha256 == found), None)
    if name:
        return OF.passed(str(path), f"is {name} of {release.name}, byte for byte", file=name, found=found)
    expected = release.sums.get(path.name)
    with path.open("rb") as file:
        is_pointer = lfs.is_pointer(file.read(len(lfs.START)))
    detail = f"is no file of {release.name}: {SUMS} does not list its digest"
    if is_pointer:
        detail += f": {lfs.ADVICE}"
    elif expected:
        detail += f", and another one for {path.name}"
    return OF.failed(str(path), detail, file=path.name, expected=expected, found=found)
