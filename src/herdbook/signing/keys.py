"""Key pairs for signing: elliptic curves P-256, P-384 and P-521, as PEM files.

These are the keys that OpenSSF model signing supports (https://github.com/ossf/model-signing-spec, v1.0). Signatures are
deterministic (RFC 6979), so the same release signed with the same key gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from herdbook.errors import StepError, VerificationError
from herdbook.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD_VARIABLE = "HERDBOOK_SIGNING_PASSWORD"  # noqa: S105 - the variable's name
PUBLIC_SUFFIX = ".pub"
MAX_KEY_BYTES = 1 << 16
HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


@dataclass(frozen=True)
class PublicKey:
    """A public key.

    Args:
        key: The key.
    """

    key: ec.EllipticCurvePublicKey

    @property
    def pem(self) -> str:
        """The key as PEM text (SubjectPublicKeyInfo)."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_bytes(serialization.Encoding.PEM, form).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the PEM text, as hexadecimal digits: the hint of model signing."""
        return hashlib.sha256(self.pem.encode("ascii")).hexdigest()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether a signature (DER) of some data was made with this key."""
        try:
            self.key.verify(signature, data, ec.ECDSA(HASHES[self.key.curve.name]()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A private key. Its content is never printed."""

    _key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        """Return the fingerprint of the public key, which may be printed."""
        return f"PrivateKey({self.public.fingerprint[:12]})"

    @property
    def public(self) -> PublicKey:
        """The public key that goes with it."""
        return PublicKey(self._key.public_key())

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the public key."""
        return self.public.fingerprint

    def sign(self, data: bytes) -> bytes:
        """Return the signature (DER) of some data; the same for the same data (RFC 6979)."""
        algorithm = HASHES[self._key.curve.name]()
        return self._key.sign(data, ec.ECDSA(algorithm, deterministic_signing=True))


def generate(path: Path) -> PublicKey:
    """Create a P-256 key pair: the private key at ``path``, readable by its owner only, and the public key at ``path.pub``.

    With a password in ``$HERDBOOK_SIGNING_PASSWORD`` the private key is encrypted with it.

    Raises:
        StepError: If one of the files exists.
    """
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    for file_path in (path, public_path):
        if file_path.exists():
            raise StepError(f"{file_path}: exists, and a key is never overwritten. Choose another file name.")
    key = ec.generate_private_key(ec.SECP256R1())
    password = os.environ.get(PASSWORD_VARIABLE)
    protection: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    public = PublicKey(key.public_key())
    write_text(public_path, public.pem)
    return public


def load_private(path: Path) -> PrivateKey:
    """Read a private key.

    Raises:
        StepError: If it cannot be read, other users may read it, it is encrypted and the password is missing or wrong, or
            model signing does not support its kind. Messages never contain the key.
    """
    password = os.environ.get(PASSWORD_VARIABLE)
    try:
        mode = path.stat().st_mode
        content = _content(path)
    except OSError as error:
        raise StepError(f"signing key {path}: cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise StepError(f"signing key {path}: other users may read it. Run `chmod 600 {path}`.")
    try:
        key = serialization.load_pem_private_key(content, password.encode() if password else None)
    except TypeError:
        remedy = f"Set ${PASSWORD_VARIABLE}." if not password else f"Unset ${PASSWORD_VARIABLE}."
        state = "encrypted" if not password else "not encrypted"
        raise StepError(f"signing key {path}: is {state}. {remedy}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise StepError(
            f"signing key {path}: is not a private key in PEM, or ${PASSWORD_VARIABLE} is wrong"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in HASHES:
        raise StepError(
            f"signing key {path}: model signing supports only P-256, P-384 and P-521. Create a key with `herdbook key`."
        )
    return PrivateKey(key)


def load_public(path: Path) -> PublicKey:
    """Read a public key from a file. Raises StepError if it cannot be read or is not such a key."""
    try:
        content = _content(path)
    except OSError as error:
        raise StepError(f"public key {path}: cannot be read: {error.strerror}") from None
    try:
        return parse_public(content, str(path))
    except VerificationError as error:
        if b"PRIVATE KEY-----" not in content:
            raise StepError(str(error)) from None
        public = path.with_name(path.name + PUBLIC_SUFFIX)
        remedy = f"did you mean {public}?" if public.exists() else "the public one is in a file of its own"
        raise StepError(f"{path}: is a private key, which its owner keeps secret; {remedy}") from None


def parse_public(content: bytes, what: str) -> PublicKey:
    """Parse a public key in PEM. Raises VerificationError if model signing does not support it."""
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise VerificationError(f"{what}: is not a public key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in HASHES:
        raise VerificationError(f"{what}: model signing supports only P-256, P-384 and P-521")
    return PublicKey(key)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_KEY_BYTES)
