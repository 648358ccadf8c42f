"""The attest step: write the claims about a release, and sign them and the model if a signer is configured."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from herdbook import plain
from herdbook.errors import StepError
from herdbook.files import atomic_writer
from herdbook.layout import CLAIMS, LINEAGE, PUBLIC_KEY, SIGNATURE, SUMS
from herdbook.provenance import lineage
from herdbook.provenance.claims import statements
from herdbook.release.sums import parse_sums, with_sums
from herdbook.signing.keys import PrivateKey
from herdbook.signing.oms import manifest
from herdbook.signing.signer import line, signed

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan import Plan
    from herdbook.recipe import Signer as NamedSigner
    from herdbook.signing.signer import Signer


def attest(plan: Plan, signer: Signer | None) -> None:
    """Write the claims about a plan's release, and signatures; signatures of an earlier run are replaced.

    Weights are not read: their digests are taken from the checksums, which `herdbook verify` compares with the files.

    Raises:
        StepError: If the release does not exist, the recipe names another signer, or keyless signing fails; then nothing is changed.
    """
    _check_signer(plan.recipe.release.signer, signer)
    folder = plan.layout.release_folder
    digests = _digests(folder)
    slices = lineage.parse(plain.read(folder, LINEAGE).decode()) if LINEAGE in digests else []
    claims = statements(plan, digests, lambda name: json.loads(plain.read(folder, name)), slices)
    written: dict[str, bytes] = {}
    if isinstance(signer, PrivateKey):
        written[PUBLIC_KEY] = signer.public.pem.encode()
        digests[PUBLIC_KEY] = hashlib.sha256(written[PUBLIC_KEY]).hexdigest()
    if signer:
        written[SIGNATURE] = signed(manifest(plan.title, digests), signer)
    with atomic_writer(folder / CLAIMS) as file:
        for statement in claims:
            file.write(line(statement, signer))
    for name in (PUBLIC_KEY, SIGNATURE):
        if name not in written:
            (folder / name).unlink(missing_ok=True)
            continue
        with atomic_writer(folder / name) as file:
            file.write(written[name])


def _check_signer(named: NamedSigner | None, signer: Signer | None) -> None:
    """Raise StepError if the recipe, and with it the card, names another signer; whose identity it is, verification checks."""
    if named and signer and signer.fingerprint != named.key:
        actual = f"key {signer.fingerprint}" if signer.fingerprint else "an identity, without a key"
        raise StepError(
            f"release.signer: the recipe names {named}, and {actual} would sign. Correct one of the two, and rebuild."
        )


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files that the checksums list, and of the checksums themselves, by name."""
    try:
        content = plain.read(folder, SUMS)
    except OSError as error:
        raise StepError(
            f"{folder}: the release does not exist yet ({error.strerror}: {SUMS}). Build it first."
        ) from error
    return with_sums(parse_sums(content.decode(), str(folder / SUMS)), content)
