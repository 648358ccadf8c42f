"""The claim that a release is published, and claims.jsonl through a model's life: lines come, and none is lost.

The claim is an in-toto Statement v1 with the release predicate v0.1: the files and digests that a commit holds, by the
commit's purl (https://github.com/in-toto/attestation/blob/main/spec/predicates/release.md).
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from herdbook.layout import SUMS
from herdbook.provenance.claims import BUILD_CLAIMS
from herdbook.provenance.slsa import statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PUBLISHED = "https://in-toto.io/attestation/release/v0.1"
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
    return statement(digests, PUBLISHED, {"purl": where})


def publications(content: bytes, digests: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the purls under which a claims file says that this very release is published, each with its line."""
    for each in _lines(content):
        found = _statement(each)
        if found is None or found.get("predicateType") != PUBLISHED:
            continue
        if _subjects(found).get(SUMS) == digests[SUMS]:
            predicate = found.get("predicate")
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


def _gives_way(there: dict[str, Any] | None, said: list[dict[str, Any] | None], digests: set[str]) -> bool:
    if there is None:
        return False
    of_a_build = str(there.get("predicateType")) in BUILD_CLAIMS
    return there in said or (of_a_build and not set(_subjects(there).values()) <= digests)


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


def _subjects(about: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of a statement's subjects by name; of one that names no SHA-256, nothing."""
    found = {}
    for item in about["subject"]:
        digest = item.get("digest") if isinstance(item, dict) else None
        if isinstance(digest, dict) and isinstance(digest.get("sha256"), str):
            found[str(item.get("name"))] = digest["sha256"]
    return found
