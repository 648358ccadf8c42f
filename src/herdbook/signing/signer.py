"""Who signs: a private key or a keyless identity, from the settings of this machine, and the signing of a statement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.provenance.claims import canonical
from herdbook.settings import KEYLESS, SIGNING_KEY
from herdbook.signing.bundle import bundle
from herdbook.signing.keyless import Keyless
from herdbook.signing.keys import PrivateKey, load_private

if TYPE_CHECKING:
    from herdbook.provenance.slsa import Statement

Signer = PrivateKey | Keyless


def configured_signer() -> Signer | None:
    """Return the signer set by ``$HERDBOOK_SIGNING_KEY``; None if it is not set. Raises as ``signer_of``."""
    return signer_of(SIGNING_KEY.value)


def signer_of(value: str) -> Signer | None:
    """Return the signer that a value of the setting names.

    Args:
        value: A private key's path, or ``keyless``; empty for no signer.

    Raises:
        StepError: If the key cannot be used.
    """
    if value == KEYLESS:
        return Keyless()
    return load_private(Path(value)) if value else None


def signed(statement: Statement, signer: Signer) -> bytes:
    """Return a statement as a signed bundle. Raises StepError if keyless signing fails."""
    return signer.bundle(statement) if isinstance(signer, Keyless) else bundle(statement, signer)


def line(statement: Statement, signer: Signer | None) -> bytes:
    """Return a statement as a line of the claims, signed if a signer is given."""
    return (signed(statement, signer) if signer else canonical(statement)) + b"\n"
