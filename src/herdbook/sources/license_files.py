"""The files of a source that hold the texts of licenses, notices and use policies. A release hands them on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from herdbook.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_BYTES = 1 << 18  # the longest license in use has a fifth of it
_NAME = re.compile(
    r"(?:licen[cs]e|unlicense|notice|copying|use_policy)(?:[-_][A-Za-z0-9._-]{1,60}?)?(?:\.(?:txt|md|rst))?",
    re.ASCII | re.IGNORECASE,
)


def license_files(names: Iterable[str]) -> list[str]:
    """Return those of the names in a source's uppermost folder that are of license texts, sorted."""
    return sorted(name for name in set(names) if _NAME.fullmatch(name))


def check_size(size_bytes: int, what: str) -> None:
    """Refuse a license text that is longer than any.

    Raises:
        SourceError: If it is.
    """
    if size_bytes > MOST_BYTES:
        raise SourceError(
            f"{what}: has {size_bytes:,} bytes, over the limit of {MOST_BYTES:,} for the text of a license"
        )
