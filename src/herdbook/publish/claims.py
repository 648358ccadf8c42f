"""The claim that a release is published, and claims.jsonl through a model's life: lines come, and none is lost.

The claim is an in-toto Statement v1 with the release predicate v0.1: the files and digests that a commit holds, by the
commit's purl (https://github.com/in-toto/attestation/blob/main/spec/predicates/release.md).
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from herdbook.release.layout import SUMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PUBLISHED = "https://in-toto.io/attestation/release/v0.1"
# What a build says of its own files. With the files it gives way to what the next build says.
OF_A_BUILD = frozenset(
    (
        "https://slsa.dev/provenance/v1",
        "https://cyclonedx.org/bom",
        "https://in-toto.io/attestation/test-result/v0.1",
    )
)
PUBLIC_HUB = "https://huggingface.co"


def purl(repo: str, commit: str, endpoint: str) -> str:
    """Return the package URL of a repository's commit (purl-spec, type ``huggingface``).

    Args:
        repo: ``owner/name``.
        commit: The commit, 40 hexadecimal digits.
        endpoint: The Hub that has it; named in the URL unless it is the public one.
    """
    elsewhere = "" if endpoint == PUBLIC_HUB else f"?repository_url={quote(endpoint, safe=':')}"
    return f"pkg:huggingface/{quote(repo)}@{commit}{elsewhere}"


def published(digests: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return the statement that files are published.

    Args:
        digests: SHA-256 of each file, by name.
        where: The purl of the commit that holds them.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digests[name]}} for name in sorted(digests)],
        "predicateType": PUBLISHED,
        "predicate": {"purl": where},
    }


def publications(content: bytes, digests: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the purls under which a claims file says that this very release is published, each with its line."""
    for each in _lines(content):
        statement = _statement(each)
        if statement is None or statement.get("predicateType") != PUBLISHED:
            continue
        if _subjects(statement).get(SUMS) == digests[SUMS]:
            predicate = statement.get("predicate")
            if isinstance(predicate, dict) and isinstance(predicate.get("purl"), str):
                yield predicate["purl"], each.decode()


def append(content: bytes, line: str) -> bytes:
    """Return a claims file with one more line."""
    return b"".join(each + b"\n" for each in (*_lines(content), line.encode()))


def merge(mine: bytes, there: bytes, digests: Mapping[str, str]) -> bytes:
    """Return a release's claims file with what others have said since.

    A line that is there already stays, unless it says what a line of the release says (under another signature), or is
    an earlier build's word about files that are in the release no more. Lines that cannot be read are kept too: they
    may mean something to others.

    Args:
        mine: The release's own claims file.
        there: The claims file in the place where it is published.
        digests: SHA-256 of the release's files, by name.
    """
    own = _lines(mine)
    said = [_statement(line) for line in own]
    kept = [
        line
        for line in _lines(there)
        if line not in own and not _gives_way(_statement(line), said, set(digests.values()))
    ]
    return b"".join(line + b"\n" for line in (*own, *kept))


def _gives_way(
    statement: dict[str, Any] | None, said: list[dict[str, Any] | None], digests: set[str]
) -> bool:
    if statement is None:
        return False
    of_a_build = str(statement.get("predicateType")) in OF_A_BUILD
    return statement in said or (of_a_build and not set(_subjects(statement).values()) <= digests)


def _lines(content: bytes) -> list[bytes]:
    return [line for line in content.split(b"\n") if line.strip()]


def _statement(line: bytes) -> dict[str, Any] | None:
    """Return the statement in a line, bare or in an envelope, whoever signed it; None if there is none."""
    try:
        data = json.loads(line)
        if isinstance(data, dict) and isinstance(data.get("dsseEnvelope"), dict):
            data = json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return data if isinstance(data, dict) and isinstance(data.get("subject"), list) else None


def _subjects(statement: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of a statement's subjects by name; of one that names no SHA-256, nothing."""
    found = {}
    for item in statement["subject"]:
        digest = item.get("digest") if isinstance(item, dict) else None
        if isinstance(digest, dict) and isinstance(digest.get("sha256"), str):
            found[str(item.get("name"))] = digest["sha256"]
    return found
