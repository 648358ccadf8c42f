"""Sign and read claims: in-toto statements in DSSE envelopes in Sigstore bundles.

Formats: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md (v1.0), Sigstore bundle v0.3, and, for a local
key, the bundle of OpenSSF model signing v1.0.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.errors import VerificationError
from herdbook.provenance.claims import canonical

if TYPE_CHECKING:
    from herdbook.provenance.slsa import Statement
    from herdbook.signing.keys import PrivateKey, PublicKey

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Envelope:
    """A statement and its signatures, as read.

    Args:
        statement: The statement.
        payload: The statement's bytes, which are signed.
        signatures: Signatures of the payload (DER); none if the statement is bare.
        hint: The key that claims to have signed: SHA-256 of its PEM text.
        certified: Whether the signer is named by a Sigstore certificate instead (keyless).
        raw: The bundle as JSON.
    """

    statement: dict[str, Any]
    payload: bytes
    signatures: tuple[bytes, ...] = ()
    hint: str | None = None
    certified: bool = False
    raw: str = ""

    @property
    def is_signed(self) -> bool:
        """Whether it has a signature, valid or not."""
        return bool(self.signatures)

    def is_signed_by(self, key: PublicKey) -> bool:
        """Return whether one of the signatures is valid for this key."""
        data = pae(PAYLOAD_TYPE, self.payload)
        return any(key.verifies(signature, data) for signature in self.signatures)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes of an envelope that are signed: its pre-authentication encoding (DSSE v1.0)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def bundle(statement: Statement, key: PrivateKey) -> bytes:
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
        what: Its name in errors.

    Raises:
        VerificationError: If it is neither.
    """
    raw = text if isinstance(text, str) else text.decode("utf-8", errors="replace")
    try:
        data = jsonio.load(raw, limits.CLAIMS)
        if "dsseEnvelope" not in data:
            return Envelope(_statement(data), canonical(data), raw=raw)
        envelope, material = data["dsseEnvelope"], data.get("verificationMaterial", {})
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise VerificationError(f"{what}: contains {envelope['payloadType']!r}, not an in-toto statement")
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = tuple(base64.b64decode(entry["sig"], validate=True) for entry in envelope["signatures"])
        hint = material.get("publicKey", {}).get("hint")
        certified = "certificate" in material
        statement = _statement(jsonio.load(payload, limits.CLAIMS))
    except limits.OverLimitError as error:
        raise VerificationError(f"{what}: refused: it {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError, binascii.Error) as error:
        raise VerificationError(
            f"{what}: is neither a bundle nor a statement ({type(error).__name__})"
        ) from None
    if not signatures:
        raise VerificationError(f"{what}: is a bundle without a signature")
    return Envelope(statement, payload, signatures, hint if isinstance(hint, str) else None, certified, raw)


def _statement(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict) or not isinstance(data["predicateType"], str):
        raise TypeError("not a statement")
    if not all(isinstance(file["digest"], dict) for file in data["subject"]):
        raise TypeError("a subject without a digest")
    return data
