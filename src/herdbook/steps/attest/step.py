"""The attest step: write the claims about a release, and sign them and the model if a signer is configured."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError
from herdbook.files import atomic_writer
from herdbook.layout import CLAIMS, PUBLIC_KEY, SIGNATURE, SUMS
from herdbook.provenance.claims import canonical, statements
from herdbook.release.sums import parse_sums, with_sums
from herdbook.settings import KEYLESS, SIGNING_KEY
from herdbook.signing.bundle import bundle
from herdbook.signing.keyless import Keyless
from herdbook.signing.keys import PrivateKey, load_private
from herdbook.signing.oms import manifest

if TYPE_CHECKING:
    from herdbook.plan import Plan

Signer = PrivateKey | Keyless


def configured_signer() -> Signer | None:
    """Return the signer set by ``$HERDBOOK_SIGNING_KEY`` (a key's path, or ``keyless``); None if it is not set.

    Raises:
        StepError: If the key cannot be used.
    """
    configured = SIGNING_KEY.value
    if configured == KEYLESS:
        return Keyless()
    return load_private(Path(configured)) if configured else None


def signed(statement: dict[str, Any], signer: Signer) -> bytes:
    """Return a statement as a signed bundle. Raises StepError if keyless signing fails."""
    return signer.bundle(statement) if isinstance(signer, Keyless) else bundle(statement, signer)


def line(statement: dict[str, Any], signer: Signer | None) -> bytes:
    """Return a statement as a line of the claims, signed if there is a signer."""
    return (signed(statement, signer) if signer else canonical(statement)) + b"\n"


def attest(plan: Plan, signer: Signer | None) -> None:
    """Write the claims about a plan's release, and signatures; signatures of an earlier run are replaced.

    Weights are not read: their digests are taken from the checksums, which `herdbook verify` compares with the files.

    Raises:
        StepError: If the release does not exist, or keyless signing fails; then nothing is changed.
    """
    folder = plan.layout.release_folder
    digests = _digests(folder)
    claims = statements(plan, digests, lambda name: json.loads((folder / name).read_text(encoding="utf-8")))
    written: dict[str, bytes] = {}
    if isinstance(signer, PrivateKey):
        written[PUBLIC_KEY] = signer.public.pem.encode()
        digests[PUBLIC_KEY] = hashlib.sha256(written[PUBLIC_KEY]).hexdigest()
    if signer:
        written[SIGNATURE] = signed(manifest(plan.recipe.release.name, digests), signer)
    with atomic_writer(folder / CLAIMS) as file:
        for statement in claims:
            file.write(line(statement, signer))
    for name in (PUBLIC_KEY, SIGNATURE):
        if name not in written:
            (folder / name).unlink(missing_ok=True)
            continue
        with atomic_writer(folder / name) as file:
            file.write(written[name])


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files that the checksums list, and of the checksums themselves, by name."""
    try:
        content = (folder / SUMS).read_bytes()
    except OSError as error:
        raise StepError(
            f"{folder}: the release does not exist yet ({error.strerror}: {SUMS}). Build it first."
        ) from error
    return with_sums(parse_sums(content.decode(), str(folder / SUMS)), content)
