"""The claim that a release is published, and how claims.jsonl grows without losing a line.

The claim is an in-toto Statement v1 with the release predicate v0.1: the files and digests in a commit, identified by the
commit's purl (https://github.com/in-toto/attestation/blob/main/spec/predicates/release.md).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.layout import SUMS
from herdbook.provenance.claims import BUILD_CLAIMS
from herdbook.provenance.slsa import statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.provenance.slsa import Statement

PUBLISHED = "https://in-toto.io/attestation/release/v0.1"


def published(digests: Mapping[str, str], where: str) -> Statement:
    """Return the statement that files are published.

    Args:
        digests: SHA-256 of each file, by name.
        where: The purl of the commit that contains them.
    """
    return statement(digests, PUBLISHED, {"purl": where})


def publications(content: bytes, digests: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each purl at which a claims file states that exactly this release is published, with its line."""
    for line in _lines(content):
        statement_ = _statement(line)
        if statement_ is None or statement_.get("predicateType") != PUBLISHED:
            continue
        if _subjects(statement_).get(SUMS) == digests[SUMS]:
            predicate = statement_.get("predicate")
            if isinstance(predicate, dict) and isinstance(predicate.get("purl"), str):
                yield predicate["purl"], line.decode()


def append(content: bytes, line: str) -> bytes:
    """Return a claims file with one more line."""
    return b"".join(item + b"\n" for item in (*_lines(content), line.encode()))


def merge(own_claims: bytes, published_claims: bytes, digests: Mapping[str, str]) -> bytes:
    """Return a release's claims file with the claims that others have added where it is published.

    A published line is kept unless the release has the same statement (perhaps with another signature), or it is a claim of
    an earlier build about files that are no longer in the release. Lines that cannot be read are kept too: other programs
    may be able to read them.

    Args:
        own_claims: The release's own claims file.
        published_claims: The published claims file.
        digests: SHA-256 of the release's files, by name.
    """
    own = _lines(own_claims)
    statements = [_statement(line) for line in own]
    kept = [
        line
        for line in _lines(published_claims)
        if line not in own and not _is_replaced(_statement(line), statements, set(digests.values()))
    ]
    return b"".join(line + b"\n" for line in (*own, *kept))


def _is_replaced(
    published: dict[str, Any] | None, own: list[dict[str, Any] | None], digests: set[str]
) -> bool:
    """Return whether a published statement is in the release too, or is an earlier build's about other files."""
    if published is None:
        return False
    of_a_build = str(published.get("predicateType")) in BUILD_CLAIMS
    return published in own or (of_a_build and not set(_subjects(published).values()) <= digests)


def _lines(content: bytes) -> list[bytes]:
    return [line for line in content.split(b"\n") if line.strip()]


def _statement(line: bytes) -> dict[str, Any] | None:
    """Return the statement in a line, bare or in an envelope, with any signature; None if it has none."""
    try:
        data = jsonio.load(line, limits.CLAIMS)
        if isinstance(data, dict) and isinstance(data.get("dsseEnvelope"), dict):
            data = jsonio.load(base64.b64decode(data["dsseEnvelope"]["payload"]), limits.CLAIMS)
    except (ValueError, KeyError, TypeError):
        return None
    return data if isinstance(data, dict) and isinstance(data.get("subject"), list) else None


def _subjects(statement_: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of a statement's subjects by name, without subjects that have no SHA-256."""
    digests = {}
    for subject in statement_["subject"]:
        digest = subject.get("digest") if isinstance(subject, dict) else None
        if isinstance(digest, dict) and isinstance(digest.get("sha256"), str):
            digests[str(subject.get("name"))] = digest["sha256"]
    return digests
