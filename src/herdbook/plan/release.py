"""The release, as far as it follows from the plan: its files, which of them are written for it, and their keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from herdbook import lock as locks
from herdbook import plain
from herdbook.files import sha256_file
from herdbook.key import digest
from herdbook.layout import (
    BOMS,
    CLAIMS,
    EVALUATIONS,
    IMATRIX,
    LINEAGE,
    LOCK,
    LOSSES,
    PUBLIC_KEY,
    RECIPE,
    RECORDS,
    ROUTING,
    SAMPLES_SUFFIX,
    SEARCHES,
    SIGNATURE,
    SUMS,
    is_large,
)
from herdbook.plan.card import card_files, card_key
from herdbook.plan.code import DOCUMENTS, Code
from herdbook.plan.edition import Edition
from herdbook.plan.folder import folder_files
from herdbook.plan.material import carried_inputs
from herdbook.settings import KEYLESS

if TYPE_CHECKING:
    from herdbook.plan.plan import Plan

VERSIONS = ("herdbook", "snakemake")  # claims state their versions
# The code that writes claims and bills of materials; it is recorded, so a verifier can check whether its own code is the same.
PROVENANCE_CODE = Code(
    "provenance",
    (
        *(
            f"herdbook.provenance.{name}"
            for name in ("bom", "claims", "lineage", "origins", "slsa", "tensor_lineage")
        ),
        *DOCUMENTS,
    ),
    packages=VERSIONS,
)
RELEASE_CODE = Code("release", ("herdbook.steps.release.step", *DOCUMENTS), packages=VERSIONS)
ATTEST_CODE = Code(
    "attest", ("herdbook.steps.attest.step", *DOCUMENTS), without=("sigstore",), packages=VERSIONS
)
KEYLESS_CODE = Code(
    "attest-keyless", ATTEST_CODE.entries, without=("cryptography", "sigstore"), packages=VERSIONS
)
# What the page is made of besides code.
PAGE, PAGE_FILES = Path(__file__).parents[1] / "verify" / "page", {".j2", ".css", ".js"}
VERIFY_CODE = Code(
    "verify",
    (
        "herdbook.verify.levels",
        "herdbook.verify.report",
        "herdbook.verify.page",
        "herdbook.release.reader",
        *DOCUMENTS,
    ),
    without=tuple(
        f"herdbook.verify.{name}" for name in ("equality", "upstream", "rebuild.build", "rebuild.recompute")
    ),
    packages=VERSIONS,
)


class SignerIdentity(Protocol):
    """The signer of the claims, as far as a plan needs it."""

    @property
    def fingerprint(self) -> str | None:
        """The public key's fingerprint; None for keyless signing (Sigstore)."""


def contents(plan: Plan) -> dict[str, Path]:
    """Return the files that are taken into the release: by name in the release, the path that each is taken from.

    The files that are computed from them come on top; see ``written_files``.
    """
    folder = plan.layout.folder(plan.released)
    files = {name: folder / name for name in folder_files(plan.released)}
    files |= {name: plan.layout.quantized(item) for item in plan.quantized for name in item.parts}
    files |= {name: plan.layout.card_folder / name for name in card_files(plan)}
    files |= {RECIPE: plan.recipe_path, LOCK: locks.path_for(plan.recipe_path)}
    files |= {f"{RECORDS}/{part.id}.json": plan.layout.record(part) for part in plan.parts.values()}
    files |= {f"{RECORDS}/{item.id}.gguf.json": plan.layout.quantized_record(item) for item in plan.quantized}
    if matrix := plan.imatrix:
        files[matrix.file] = plan.layout.matrix(matrix)
        files[f"{RECORDS}/{matrix.id}{IMATRIX}.json"] = plan.layout.matrix_record(matrix)
    files |= {f"{SEARCHES}/{search.id}.json": plan.layout.search(search) for search in plan.searches.values()}
    files |= {f"{EVALUATIONS}/{item.id}.json": plan.layout.evaluation(item) for item in plan.evaluations}
    if releases_samples(plan):
        files |= {
            f"{EVALUATIONS}/{item.id}{SAMPLES_SUFFIX}": plan.layout.samples(item) for item in plan.evaluations
        }
    if plan.report:
        files[f"{ROUTING}/{plan.report.id}.json"] = plan.layout.report(plan.report)
    if plan.reference:
        files[f"{LOSSES}/{plan.reference.id}.json"] = plan.layout.reference_record(plan.reference)
    files |= {f"{LOSSES}/{item.id}.json": plan.layout.loss(item) for item in plan.losses}
    files |= {name: path for name, (_, path) in carried_inputs(plan).items()}
    return {name: path for name, path in files.items() if plan.edition.has(name)}


def computed_files(plan: Plan) -> list[str]:
    """Return the names of the files that are computed from the others of a release, without the checksums."""
    lineage = [] if plan.edition is Edition.GGUF else [LINEAGE]  # which is about bytes of safetensors
    return [*lineage, *BOMS.values()]


def releases_samples(plan: Plan) -> bool:
    """Return whether the release contains what was measured document by document."""
    return bool(plan.recipe.evaluate and plan.recipe.evaluate.release_samples)


def written_files(plan: Plan) -> list[str]:
    """Return the names of the files of the release that are written for it, not linked.

    A workflow declares only these: Snakemake touches declared outputs, and touching a hard link would make the shard behind
    it look newer than everything that was made from it.
    """
    return [*(name for name in contents(plan) if not is_large(name)), *computed_files(plan), SUMS]


def attested_files(signer: SignerIdentity | None) -> list[str]:
    """Return the names of the files that contain the claims and the signature of the release."""
    if signer is None:
        return [CLAIMS]
    return [CLAIMS, SIGNATURE, *([PUBLIC_KEY] if signer.fingerprint else [])]


def other_origin(folder: Path, recipe: Path) -> tuple[str, Path] | None:
    """Return in what a release was made from something else than a recipe and its lock; None if it was made from them.

    Args:
        folder: The release's folder; what is missing there is not compared.
        recipe: The path of the recipe.

    Returns:
        The name of the file in the release, and the path of the present one.
    """
    for name, path in ((RECIPE, recipe), (LOCK, locks.path_for(recipe))):
        if (folder / name).exists() and plain.digest(folder, name) != sha256_file(path):
            return name, path
    return None


def release_key(plan: Plan) -> str:
    """Return the digest of everything that the release's folder is made from."""
    lock = sha256_file(locks.path_for(plan.recipe_path))
    return digest({"card": card_key(plan), "lock": lock, "code": RELEASE_CODE.describe().json})


def attest_key(plan: Plan, signer: SignerIdentity | None) -> str:
    """Return the digest of what the claims and signatures depend on.

    A signing key enters by its public half. Each keyless signature is a new one and is recorded in a public log: so neither
    the signer's identity nor the library's version enters the digest, and a signed release is not signed a second time.
    """
    identity = (signer.fingerprint or KEYLESS) if signer else None
    code = KEYLESS_CODE if identity == KEYLESS else ATTEST_CODE
    return digest({"release": release_key(plan), "signer": identity, "code": code.describe().json})


def verification_key(plan: Plan, signer: SignerIdentity | None) -> str:
    """Return the digest of what a verification of a plan's release depends on."""
    page = {path.name: sha256_file(path) for path in sorted(PAGE.iterdir()) if path.suffix in PAGE_FILES}
    return digest({"attested": attest_key(plan, signer), "code": VERIFY_CODE.describe().json, "page": page})
