"""The level `claims`: the claims follow from the release's own files, and the signatures are valid.

Each claim of a build is derived from the files and compared byte by byte, so a removed, added or altered claim is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.errors import VerificationError
from herdbook.layout import BOMS, CLAIMS, LINEAGE, SUMS
from herdbook.plan.code import as_recorded
from herdbook.plan.release import PROVENANCE_CODE, contents
from herdbook.provenance.claims import BUILD_CLAIMS, canonical, statements
from herdbook.provenance.slsa import PROVENANCE_TYPE
from herdbook.release.finding import Check
from herdbook.release.reader import caught, damaged
from herdbook.verify import pedigree, signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.signature import SignedClaim

LEVEL = "claims"
CONTENTS = Check(LEVEL, "contents")
CLAIMED = Check(LEVEL, "claims")


@dataclass(frozen=True)
class _RecordedBuild:
    """What the provenance records of the build: keys of models, and the code that they depend on."""

    keys: dict[str, Any]
    code: dict[str, str]


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Check claims and signatures, and the pedigree that supports them."""
    claims = signature.read_claims(release)
    yield from (
        CLAIMED.passed(f"line {number}", f"cannot be read and is ignored: {why}", file=CLAIMS)
        for number, why in claims.unread
    )
    yield from signature.check(release, claims, options)
    build = _recorded_build(claims.claims)
    installed = PROVENANCE_CODE.describe()
    same_code = {name: build.code.get(name) for name in installed} == installed
    with as_recorded(build.code):
        plan = release.make_plan()
        yield from caught(pedigree.keys(plan, build.keys, build.code.get("herdbook")), pedigree.KEYS, release)
        yield from caught(_contents(plan, release), CONTENTS, release)
        yield from caught(_derived(plan, release, claims.claims, same_code=same_code), CLAIMED, release)
        yield from caught(pedigree.records(plan, release), pedigree.STEPS, release)
        yield from caught(pedigree.origins(plan, release), pedigree.ORIGINS, release)
        yield from caught(pedigree.lineage(plan, release), pedigree.LINEAGES, release)


def recorded(release: Release) -> dict[str, str]:
    """Return the code that made a release, as its provenance records it: ``{module or package: digest or version}``.

    Raises:
        VerificationError: If the provenance is missing or damaged.
    """
    return _recorded_build(signature.read_claims(release).claims).code


def _recorded_build(claims: list[SignedClaim]) -> _RecordedBuild:
    """Return what the provenance records. Raises VerificationError if it is missing or damaged."""
    for claim in claims:
        if claim.kind == PROVENANCE_TYPE:
            with damaged(f"{CLAIMS}: the provenance"):
                internal = claim.statement["predicate"]["buildDefinition"]["internalParameters"]
                code = {str(name): str(value) for name, value in internal["code"].items()}
                return _RecordedBuild(dict(internal["keys"]), code)
    raise VerificationError(f"{CLAIMS}: contains no provenance")


def _contents(plan: Plan, release: Release) -> Iterator[Finding]:
    """Check that the release contains the files that its recipe makes, no more and no less."""
    expected = {*contents(plan), LINEAGE, *BOMS.values()}
    for name in sorted(expected - release.sums.keys()):
        yield CONTENTS.failed(name, f"is made by the recipe, but {SUMS} does not list it", file=name)
    for name in sorted(release.sums.keys() - expected):
        yield CONTENTS.failed(name, "is not made by the recipe", file=name)
    if expected == release.sums.keys():
        yield CONTENTS.passed(f"{len(expected)} files", "are exactly those that the recipe makes")


def _derived(
    plan: Plan, release: Release, claims: list[SignedClaim], *, same_code: bool
) -> Iterator[Finding]:
    """Check that the claims of the build are those that follow from the release."""
    build_claims = [claim for claim in claims if claim.kind in BUILD_CLAIMS]
    payloads = [claim.payload for claim in build_claims]
    derived = [(canonical(claim), claim) for claim in statements(plan, release.digests, release.subject.json)]
    unmatched = [claim for claim in build_claims if claim.payload not in [payload for payload, _ in derived]]
    for payload, statement in derived:
        kind = str(statement["predicateType"])
        if payload in payloads:
            yield CLAIMED.passed(kind, "follows from the release's own files", file=CLAIMS)
            continue
        candidate = next((claim for claim in unmatched if claim.kind == kind), None)
        if candidate is None:
            yield CLAIMED.failed(kind, "this claim of the build is missing", file=CLAIMS)
            continue
        unmatched.remove(candidate)
        where, expected, found = difference(statement, candidate.statement)
        about = {"file": CLAIMS, "expected": expected, "found": found}
        if where.startswith("subject") or same_code:
            yield CLAIMED.failed(
                kind, f"line {candidate.number} differs from the derived claim at {where}", **about
            )
        else:
            detail = f"line {candidate.number} was written by another version of Herdbook and differs from the derived claim at {where}"
            yield CLAIMED.unverified(kind, detail, **about)
    for claim in unmatched:
        yield CLAIMED.failed(claim.kind, f"line {claim.number} does not follow from the release", file=CLAIMS)
    later = [claim for claim in claims if claim.kind not in BUILD_CLAIMS]
    for claim in later:
        yield CLAIMED.passed(
            claim.kind, f"line {claim.number} was added after the build and is not checked", file=CLAIMS
        )


def difference(expected: Any, found: Any, where: str = "") -> tuple[str, str, str]:
    """Return the path at which two JSON values first differ, and both values at it, shortened."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key) or (key in expected) != (key in found):
                return difference(expected.get(key), found.get(key), f"{where}.{key}" if where else key)
    if isinstance(expected, list) and isinstance(found, list):
        for index in range(max(len(expected), len(found))):
            left, right = (side[index] if index < len(side) else None for side in (expected, found))
            if left != right:
                return difference(left, right, f"{where}[{index}]")
    return where or "the top level", str(expected)[:200], str(found)[:200]
