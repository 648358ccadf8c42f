"""OpenSSF model signing: one signature over the digests of all files of a model.

Format: https://github.com/ossf/model-signing-spec (v1.0). The signed manifest lists every file, so that a changed,
renamed, missing or added file is reported by name. The subject's digest does not bind names, so it is not relied on.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from herdbook.errors import UnverifiedError, VerificationError
from herdbook.layout import CLAIMS, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.provenance.slsa import Statement
    from herdbook.signing.bundle import Envelope

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
# Files of the repository, not of the model; the reference implementation leaves them out, too.
OF_GIT = (".git", ".gitattributes", ".github", ".gitignore")
IGNORED = (*OF_GIT, CLAIMS, SIGNATURE)


def manifest(name: str, digests: Mapping[str, str]) -> Statement:
    """Return the statement that is signed.

    Args:
        name: The model's name, for people only.
        digests: SHA-256 of each file, by name; ``IGNORED`` files are not signed.
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
        VerificationError: If it is not a model signature, or contradicts itself.
        UnverifiedError: If it signs another kind of digest, or pieces of files.
    """
    statement = envelope.statement
    if statement["predicateType"] != PREDICATE_TYPE:
        raise VerificationError(
            f"{SIGNATURE}: has the type {statement['predicateType']!r}, which is not a model signature"
        )
    try:
        predicate, [subject] = statement["predicate"], statement["subject"]
        how = predicate["serialization"]
        if how["method"] != "files" or how["hash_type"] != "sha256":
            raise UnverifiedError(
                f"{SIGNATURE}: signs {how['hash_type']} digests of {how['method']}; only SHA-256 of whole files is supported"
            )
        digests = {str(file["name"]): str(file["digest"]) for file in predicate["resources"]}
        root = hashlib.sha256(
            b"".join(bytes.fromhex(file["digest"]) for file in predicate["resources"])
        ).hexdigest()
        claimed = subject["digest"]["sha256"]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise VerificationError(f"{SIGNATURE}: its manifest is damaged ({type(error).__name__})") from None
    if len(digests) != len(predicate["resources"]) or root != claimed:
        raise VerificationError(f"{SIGNATURE}: its manifest contradicts its own digest")
    return digests


def differences(
    signed: Mapping[str, str], found: Mapping[str, str]
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield each file that differs from the signed one: its name, the signed digest, the actual digest."""
    present = {
        name: digest
        for name, digest in found.items()
        if name not in IGNORED and name.partition("/")[0] not in OF_GIT
    }
    for name in sorted(signed.keys() | present.keys()):
        if signed.get(name) != present.get(name):
            yield name, signed.get(name), present.get(name)
