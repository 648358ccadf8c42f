"""OpenSSF model signing: one signature over the digests of all files of a model.

Format: https://github.com/ossf/model-signing-spec (v1.0). What is signed lists every file, so that a changed, renamed,
missing or added file is told by its name; the subject's digest does not bind names, and nothing here rests on it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from herdbook.errors import UnverifiedError, VerificationError
from herdbook.layout import CLAIMS, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.signing.bundle import Envelope

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
# Of the place, not of the model; the reference implementation leaves them out, too.
OF_GIT = (".git", ".gitattributes", ".github", ".gitignore")
IGNORED = (*OF_GIT, CLAIMS, SIGNATURE)


def manifest(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement that is signed.

    Args:
        name: What the model is called; for people, nothing rests on it.
        digests: SHA-256 of each file, by name; those that are left out are not signed.
    """
    signed = {file: digest for file, digest in sorted(digests.items()) if file not in IGNORED}
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in signed.values())).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest} for file, digest in signed.items()
            ],
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted(IGNORED),
            },
        },
    }


def signed_digests(envelope: Envelope) -> dict[str, str]:
    """Return the SHA-256 of each file that a model signature signs, by name.

    Raises:
        VerificationError: If it is no model signature, or contradicts itself.
        UnverifiedError: If it is about digests of another kind, or about pieces of files.
    """
    statement = envelope.statement
    if statement["predicateType"] != PREDICATE_TYPE:
        raise VerificationError(
            f"{SIGNATURE}: is about {statement['predicateType']!r}, it is no model signature"
        )
    try:
        predicate, [subject] = statement["predicate"], statement["subject"]
        how = predicate["serialization"]
        if how["method"] != "files" or how["hash_type"] != "sha256":
            raise UnverifiedError(
                f"{SIGNATURE}: signs {how['hash_type']} digests of {how['method']}; only SHA-256 of whole files is known here"
            )
        found = {str(one["name"]): str(one["digest"]) for one in predicate["resources"]}
        root = hashlib.sha256(
            b"".join(bytes.fromhex(one["digest"]) for one in predicate["resources"])
        ).hexdigest()
        claimed = subject["digest"]["sha256"]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise VerificationError(f"{SIGNATURE}: its manifest is damaged ({type(error).__name__})") from None
    if len(found) != len(predicate["resources"]) or root != claimed:
        raise VerificationError(f"{SIGNATURE}: its manifest contradicts its own digest")
    return found


def differences(
    signed: Mapping[str, str], found: Mapping[str, str]
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield each file that is not as it was signed: its name, the digest that was signed, the one that it has."""
    present = {
        name: digest
        for name, digest in found.items()
        if name not in IGNORED and name.partition("/")[0] not in OF_GIT
    }
    for name in sorted(signed.keys() | present.keys()):
        if signed.get(name) != present.get(name):
            yield name, signed.get(name), present.get(name)
