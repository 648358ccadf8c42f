"""Sigstore bundles of in-toto statements in DSSE envelopes: how a claim is signed, and read again.

Formats: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md (v1.0), Sigstore bundle v0.3, and for a local
key the form that OpenSSF model signing v1.0 gives to it.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.errors import VerificationError
from herdbook.provenance.claims import canonical

if TYPE_CHECKING:
    from herdbook.signing.keys import PrivateKey, PublicKey

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_LINE_BYTES = 256_000_000


@dataclass(frozen=True)
class Envelope:
    """A statement as it was read.

    Args:
        statement: What is said.
        payload: The bytes that say it: those that are signed.
        signatures: Signatures of them (DER); none, if the statement is bare.
        hint: Which key is said to have signed: SHA-256 of its PEM text.
        certified: Whether a certificate of Sigstore says instead who signed (keyless).
        raw: The bundle, as JSON.
    """

    statement: dict[str, Any]
    payload: bytes
    signatures: tuple[bytes, ...] = ()
    hint: str | None = None
    certified: bool = False
    raw: str = ""

    @property
    def is_signed(self) -> bool:
        """Whether there is a signature, good or bad."""
        return bool(self.signatures)

    def is_signed_by(self, key: PublicKey) -> bool:
        """Return whether one signature is by this key."""
        data = pae(PAYLOAD_TYPE, self.payload)
        return any(key.verifies(signature, data) for signature in self.signatures)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed of an envelope: its pre-authentication encoding (DSSE v1.0)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def bundle(statement: dict[str, Any], key: PrivateKey) -> bytes:
    """Return a statement, signed, as the canonical JSON of a bundle: the same bytes for the same statement and key."""
    payload = canonical(statement)
    signature = key.sign(pae(PAYLOAD_TYPE, payload))
    return canonical({
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public.fingerprint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode("ascii"), "keyid": ""}],
        },
    })  # fmt: skip


def read(text: str | bytes, what: str) -> Envelope:
    """Read a bundle, or a bare statement.

    Args:
        text: Its JSON.
        what: How errors call it.

    Raises:
        VerificationError: If it is neither.
    """
    if len(text) > MAX_LINE_BYTES:
        raise VerificationError(f"{what}: is larger than any claim")
    raw = text if isinstance(text, str) else text.decode("utf-8", errors="replace")
    try:
        data = json.loads(raw)
        if "dsseEnvelope" not in data:
            return Envelope(_statement(data), canonical(data), raw=raw)
        envelope, material = data["dsseEnvelope"], data.get("verificationMaterial", {})
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise VerificationError(f"{what}: holds {envelope['payloadType']!r}, no in-toto statement")
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = tuple(base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"])
        hint = material.get("publicKey", {}).get("hint")
        certified = "certificate" in material
        statement = _statement(json.loads(payload))
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        binascii.Error,
    ) as error:
        raise VerificationError(
            f"{what}: is neither a bundle nor a statement ({type(error).__name__})"
        ) from None
    if not signatures:
        raise VerificationError(f"{what}: is a bundle without a signature")
    return Envelope(statement, payload, signatures, hint if isinstance(hint, str) else None, certified, raw)


def _statement(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict) or not isinstance(data["predicateType"], str):
        raise TypeError("no statement")
    if not all(isinstance(one["digest"], dict) for one in data["subject"]):
        raise TypeError("no subject")
    return data
