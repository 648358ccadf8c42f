"""The attest step: write the claims about a release, and sign them and the model if there is a key."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.attest.bundle import bundle
from herdbook.attest.keys import load_private
from herdbook.attest.oms import manifest
from herdbook.errors import StepError
from herdbook.files import atomic_writer, sha256_file, write_text
from herdbook.key import Code, digest
from herdbook.provenance.claims import canonical, statements
from herdbook.release.layout import CLAIMS, PUBLIC_KEY, SIGNATURE, SUMS
from herdbook.release.step import release_key

if TYPE_CHECKING:
    from herdbook.attest.keys import PrivateKey
    from herdbook.plan import Plan

KEY_VARIABLE = "HERDBOOK_SIGNING_KEY"


def configured_key() -> PrivateKey | None:
    """Return this machine's signing key, by ``$HERDBOOK_SIGNING_KEY``, or None. Raises StepError if it cannot be used."""
    path = os.environ.get(KEY_VARIABLE)
    return load_private(Path(path)) if path else None


def attested_files(key: PrivateKey | None) -> list[str]:
    """Return the names of the files that are written."""
    return [CLAIMS, *([SIGNATURE, PUBLIC_KEY] if key else [])]


def attest_key(plan: Plan, key: PrivateKey | None) -> str:
    """Return the digest of what the claims and signatures depend on; of the key, its public half."""
    code = Code(
        tuple(f"herdbook.attest.{name}" for name in ("bundle", "keys", "oms", "step")), ("cryptography",)
    )
    signer = key.public.fingerprint if key else None
    return digest({"release": release_key(plan), "signer": signer, "code": code.describe()})


def line(statement: dict[str, Any], key: PrivateKey | None) -> bytes:
    """Return a statement as a line of the claims, signed if there is a key."""
    return (bundle(statement, key) if key else canonical(statement)) + b"\n"


def attest(plan: Plan, key: PrivateKey | None) -> None:
    """Write the claims about a plan's release, and signatures; what an earlier run signed is replaced.

    Weights are not read again: the checksums say their digests, and `herdbook verify` compares them.

    Raises:
        StepError: If the release is not there.
    """
    folder = plan.release_folder
    digests = _digests(folder)
    claims = statements(plan, digests, lambda name: json.loads((folder / name).read_text(encoding="utf-8")))
    with atomic_writer(folder / CLAIMS) as file:
        for statement in claims:
            file.write(line(statement, key))
    if key is None:
        for name in (SIGNATURE, PUBLIC_KEY):
            (folder / name).unlink(missing_ok=True)
        return
    write_text(folder / PUBLIC_KEY, key.public.pem)
    digests[PUBLIC_KEY] = hashlib.sha256(key.public.pem.encode()).hexdigest()
    with atomic_writer(folder / SIGNATURE) as file:
        file.write(bundle(manifest(plan.recipe.release.name, digests), key))


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files that the checksums list, and of the checksums, by name."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StepError(
            f"{folder}: there is no release yet ({error.strerror}: {SUMS}). Build it first."
        ) from error
    found = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
    return {**found, SUMS: sha256_file(folder / SUMS)}
