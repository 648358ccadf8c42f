"""Keyless signatures with Sigstore: a short-lived certificate names the signer, and a public log proves the time.

Signing needs an identity provider, a certificate authority (Fulcio) that certifies the identity, and a transparency log
(Rekor) that everyone can read: https://docs.sigstore.dev. The result differs each time. Verifying needs no service: the
bundle contains the signatures of the authority and of the log.

The library ``sigstore`` does both; it is an extra, and imported where it is used.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.errors import StepError, VerificationError
from herdbook.provenance.claims import canonical
from herdbook.signing.bundle import PAYLOAD_TYPE

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken
    from sigstore.sign import Signer

    from herdbook.provenance import slsa
    from herdbook.signing.bundle import Envelope

# Path of a client trust configuration (JSON) of a Sigstore instance other than the public one, such as a company's.
CONFIG_VARIABLE = "HERDBOOK_SIGSTORE_CONFIG"
ISSUER_OID = "1.3.6.1.4.1.57264.1.1"  # https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md


@dataclass(frozen=True)
class Identity:
    """A signer, and the identity provider that confirms it.

    Args:
        name: An e-mail address, or the URI of a workflow.
        issuer: URL of the identity provider.
    """

    name: str
    issuer: str

    def __str__(self) -> str:
        """Return a description for messages."""
        return f"{self.name} (confirmed by {self.issuer})"


class Keyless:
    """Signs with the identity of the user or CI job. It is requested at the first signature, and its certificate is reused."""

    fingerprint = None  # each signing uses a new key

    def bundle(self, statement: slsa.Statement) -> bytes:
        """Return a statement, signed, as the canonical JSON of a bundle; other bytes each time.

        Raises:
            StepError: If the library is not installed, no identity is available, or a service fails.
        """
        signer = self._signer
        from sigstore.dsse import Statement

        try:
            signed = signer.sign_dsse(Statement(canonical(statement)))
        except Exception as error:  # noqa: BLE001 - the library's errors have no root in common
            raise StepError(f"keyless signature: {_reason(error)}") from None
        return canonical(json.loads(signed.to_json()))

    @cached_property
    def _signer(self) -> Signer:
        _need_library()
        from sigstore.sign import Signer as OfSigstore
        from sigstore.sign import SigningContext

        try:
            config = _configuration()
            return OfSigstore(_token(config), SigningContext.from_trust_config(config))
        except StepError:
            raise
        except Exception as error:  # noqa: BLE001 - likewise
            raise StepError(f"keyless signature: {_reason(error)}") from None


class Roots:
    """Sigstore's trusted root: certificate authorities and logs, refreshed from its public repository if possible.

    Raises:
        StepError: If the library is not installed, or its configuration cannot be read.
    """

    def __init__(self) -> None:
        _need_library()
        from sigstore.errors import TUFError
        from sigstore.verify import Verifier

        logging.getLogger("sigstore").setLevel(logging.ERROR)  # its warnings repeat the errors that it raises
        self.stale = False
        try:
            try:
                config = _configuration()
            except TUFError:
                config, self.stale = _configuration(offline=True), True
            self._verifier = Verifier(trusted_root=config.trusted_root)
        except StepError:
            raise
        except Exception as error:  # noqa: BLE001 - the library's errors have no root in common
            raise StepError(f"Sigstore's trusted root: {_reason(error)}") from None

    def identity(self, envelope: Envelope) -> Identity:
        """Return the signer of an envelope whose certificate, log entry and signature are valid.

        Raises:
            VerificationError: If one of them is not valid.
        """
        from sigstore.models import Bundle

        try:
            bundle = Bundle.from_json(envelope.raw)
            kind, payload = self._verifier.verify_dsse(bundle, _Anybody())
            signer = _identity(bundle.signing_certificate)
        except Exception as error:  # noqa: BLE001 - untrusted certificates make the library raise errors of many kinds
            stale = (
                "; Sigstore's trusted root could not be refreshed and may be too old" if self.stale else ""
            )
            raise VerificationError(f"its keyless signature is not valid: {_reason(error)}{stale}") from None
        if (kind, payload) != (PAYLOAD_TYPE, envelope.payload):
            raise VerificationError("its keyless signature covers another statement")
        return signer


class _Anybody:
    """Policy that accepts any signer: the caller compares the identity."""

    def verify(self, cert: Certificate) -> None:
        """Accept it."""


def _identity(certificate: Certificate) -> Identity:
    from cryptography import x509

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    subjects = [
        *names.get_values_for_type(x509.RFC822Name),
        *names.get_values_for_type(x509.UniformResourceIdentifier),
    ]
    issuer = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(ISSUER_OID)).value
    if len(subjects) != 1 or not isinstance(issuer, x509.UnrecognizedExtension):
        raise VerificationError("its certificate does not name exactly one person or workflow")
    return Identity(subjects[0], issuer.value.decode())


def _configuration(*, offline: bool = False) -> ClientTrustConfig:
    from sigstore.models import ClientTrustConfig

    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        return ClientTrustConfig.production(offline=offline)
    try:
        return ClientTrustConfig.from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not a client trust configuration"
        raise StepError(f"${CONFIG_VARIABLE}: {path}: {reason}") from None


def _token(config: ClientTrustConfig) -> IdentityToken:
    """Return an identity token: from the CI, else by a login in a browser."""
    from sigstore.oidc import IdentityToken, Issuer, detect_credential

    ambient = detect_credential()
    if ambient:
        return IdentityToken(ambient)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StepError(
            "keyless signature: no identity is available. In CI, allow the job to request one (GitHub: permissions: id-token: "
            "write); elsewhere run `herdbook attest --keyless` in a terminal, which opens a browser."
        )
    return Issuer(config.signing_config.get_oidc_url()).identity_token()


def _need_library() -> None:
    try:
        import sigstore.sign  # noqa: F401 - only to see whether it can be imported
    except ImportError as error:
        raise StepError(
            f"keyless signatures need the package sigstore, which cannot be imported here ({error}). Install it with:\n"
            f"  {sys.executable} -m pip install 'herdbook[keyless]'"
        ) from None


def _reason(error: Exception) -> str:
    """Return an error of the library in one line, with its cause; some have no other message."""
    text = " ".join(str(error).split()) or type(error).__name__
    cause = error.__cause__ or error.__context__
    return f"{text} ({type(cause).__name__})"[:500] if cause else text[:500]
