"""The release, as far as it follows from the plan: what goes into it, what is written for it, and the keys of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from herdbook import lock as locks
from herdbook.files import sha256_file
from herdbook.key import digest
from herdbook.layout import (
    BOMS,
    CLAIMS,
    EVALUATIONS,
    LINEAGE,
    LOCK,
    PUBLIC_KEY,
    RECIPE,
    RECORDS,
    ROUTING,
    SEARCHES,
    SIGNATURE,
    SUMS,
    is_large,
)
from herdbook.plan.card import card_files, card_key
from herdbook.plan.code import DOCUMENTS, Code
from herdbook.plan.folder import folder_files
from herdbook.plan.material import carried_inputs
from herdbook.settings import KEYLESS

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan.plan import Plan

VERSIONS = ("herdbook", "snakemake")  # of which claims state the versions
# What writes claims and bills of materials: with it recorded, they can be derived again by the same code or not at all.
PROVENANCE_CODE = Code(
    (*(f"herdbook.provenance.{name}" for name in ("bom", "claims", "lineage", "slsa")), *DOCUMENTS),
    packages=VERSIONS,
)
RELEASE_CODE = Code(("herdbook.steps.release.step", *DOCUMENTS), packages=VERSIONS)
ATTEST_CODE = Code(("herdbook.steps.attest.step", *DOCUMENTS), without=("sigstore",), packages=VERSIONS)
KEYLESS_CODE = Code(ATTEST_CODE.entries, without=("cryptography", "sigstore"), packages=VERSIONS)
VERIFY_CODE = Code(
    ("herdbook.verify.levels", "herdbook.verify.report", "herdbook.release.reader", *DOCUMENTS),
    without=tuple(
        f"herdbook.verify.{name}" for name in ("equality", "upstream", "rebuild.build", "rebuild.recompute")
    ),
    packages=VERSIONS,
)


class Signer(Protocol):
    """Who signs the claims, as far as a plan needs to know."""

    @property
    def fingerprint(self) -> str | None:
        """That of the public key; None if there is no key to keep (Sigstore)."""


def contents(plan: Plan) -> dict[str, Path]:
    """Return what goes into the release: by name there, the file that it is taken from.

    What is computed from them comes on top; see ``written_files``.
    """
    folder = plan.layout.folder(plan.released)
    found = {name: folder / name for name in folder_files(plan.released)}
    found |= {item.file: plan.layout.quantized(item) for item in plan.quantized}
    found |= {name: plan.layout.card_folder / name for name in card_files(plan)}
    found |= {RECIPE: plan.recipe_path, LOCK: locks.path_for(plan.recipe_path)}
    found |= {f"{RECORDS}/{part.id}.json": plan.layout.record(part) for part in plan.parts.values()}
    found |= {f"{RECORDS}/{item.id}.gguf.json": plan.layout.quantized_record(item) for item in plan.quantized}
    found |= {f"{SEARCHES}/{search.id}.json": plan.layout.search(search) for search in plan.searches.values()}
    found |= {f"{EVALUATIONS}/{item.id}.json": plan.layout.evaluation(item) for item in plan.evaluations}
    if plan.report:
        found[f"{ROUTING}/{plan.report.id}.json"] = plan.layout.report(plan.report)
    found |= {name: path for name, (_, path) in carried_inputs(plan).items()}
    return found


def written_files(plan: Plan) -> list[str]:
    """Return the names of those files of the release that are written for it, not linked.

    A workflow declares these alone: Snakemake touches what is declared, and a touch of a hard link would make the
    shard that it is look newer than all that was made from it.
    """
    computed = [LINEAGE, *BOMS.values(), SUMS]
    return [*(name for name in contents(plan) if not is_large(name)), *computed]


def attested_files(signer: Signer | None) -> list[str]:
    """Return the names of the files that state the claims and sign the release."""
    if signer is None:
        return [CLAIMS]
    return [CLAIMS, SIGNATURE, *([PUBLIC_KEY] if signer.fingerprint else [])]


def release_key(plan: Plan) -> str:
    """Return the digest of all that the release's folder is made from."""
    lock = sha256_file(locks.path_for(plan.recipe_path))
    return digest({"card": card_key(plan), "lock": lock, "code": RELEASE_CODE.describe()})


def attest_key(plan: Plan, signer: Signer | None) -> str:
    """Return the digest of what the claims and signatures depend on.

    Of a key it is the public half. A keyless signature is another one each time, and stays in a public log: so neither who
    runs this nor the library's version is in the digest, and nothing is signed again that is signed already.
    """
    who = (signer.fingerprint or KEYLESS) if signer else None
    code = KEYLESS_CODE if who == KEYLESS else ATTEST_CODE
    return digest({"release": release_key(plan), "signer": who, "code": code.describe()})


def verification_key(plan: Plan, signer: Signer | None) -> str:
    """Return the digest of what a verification of a plan's release depends on."""
    return digest({"attested": attest_key(plan, signer), "code": VERIFY_CODE.describe()})
