"""SHA256SUMS: the digests of a release's files, as ``sha256sum`` writes and checks them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from herdbook.errors import SourceError, VerificationError
from herdbook.layout import OUTSIDE_SUMS, SUMS
from herdbook.sources.select import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping


def format_sums(digests: Mapping[str, str]) -> str:
    """Return the text of a SHA256SUMS, sorted by name."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


def follows(digests: Mapping[str, str]) -> bool:
    """Return whether the digest of SHA256SUMS among digests is that of a file that lists all others of them."""
    others = {name: digest for name, digest in digests.items() if name not in OUTSIDE_SUMS}
    return digests.get(SUMS) == hashlib.sha256(format_sums(others).encode()).hexdigest()


def parse_sums(text: str, what: str) -> dict[str, str]:
    """Return the digests in a SHA256SUMS, by name.

    Args:
        text: Its text: lines of 64 hexadecimal digits, two spaces, a name.
        what: Its name in errors.

    Raises:
        VerificationError: If a line is damaged, a file is listed twice, or a name leads outside the folder.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef") or not name or name in sums:
            raise VerificationError(f"{what}: line {number} is damaged")
        try:
            sums[check_name(name, what)] = digest
        except SourceError as error:
            raise VerificationError(str(error)) from error
    return sums


def with_sums(sums: Mapping[str, str], content: bytes) -> dict[str, str]:
    """Return digests by name with that of the SHA256SUMS itself, whose content is given."""
    return {**sums, SUMS: hashlib.sha256(content).hexdigest()}
