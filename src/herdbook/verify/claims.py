"""The level `claims`: what is claimed of the release follows from its own files, and who says so.

Each claim of a build is derived again and compared byte by byte, so one that was removed, added or altered is seen.
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
    """What the provenance says of the build: keys of models, and the code that they rest on."""

    keys: dict[str, Any]
    code: dict[str, str]


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Check claims, signatures, and the pedigree that they rest on."""
    claims = signature.read_claims(release)
    yield from (
        CLAIMED.passed(f"line {number}", f"cannot be read, and is ignored: {why}", file=CLAIMS)
        for number, why in claims.unread
    )
    yield from signature.check(release, claims, options)
    said = _recorded_build(claims.claims)
    installed = PROVENANCE_CODE.describe()
    same_code = {name: said.code.get(name) for name in installed} == installed
    with as_recorded(said.code):
        plan = release.make_plan()
        yield from caught(pedigree.keys(plan, said.keys), pedigree.KEYS, release)
        yield from caught(_contents(plan, release), CONTENTS, release)
        yield from caught(_derived(plan, release, claims.claims, same_code=same_code), CLAIMED, release)
        yield from caught(pedigree.records(plan, release), pedigree.STEPS, release)
        yield from caught(pedigree.origins(plan, release), pedigree.ORIGINS, release)
        yield from caught(pedigree.lineage(plan, release), pedigree.LINEAGES, release)


def recorded(release: Release) -> dict[str, str]:
    """Return the code that a release was made by, as its provenance says: ``{module or package: digest or version}``.

    Raises:
        VerificationError: If there is no provenance, or it is damaged.
    """
    return _recorded_build(signature.read_claims(release).claims).code


def _recorded_build(claims: list[SignedClaim]) -> _RecordedBuild:
    """Return what the provenance says. Raises VerificationError if there is none, or it is damaged."""
    for claim in claims:
        if claim.kind == PROVENANCE_TYPE:
            with damaged(f"{CLAIMS}: the provenance"):
                internal = claim.statement["predicate"]["buildDefinition"]["internalParameters"]
                code = {str(name): str(value) for name, value in internal["code"].items()}
                return _RecordedBuild(dict(internal["keys"]), code)
    raise VerificationError(f"{CLAIMS}: there is no provenance among the claims")


def _contents(plan: Plan, release: Release) -> Iterator[Finding]:
    """The release holds what its recipe makes, no more and no less."""
    expected = {*contents(plan), LINEAGE, *BOMS.values()}
    for name in sorted(expected - release.sums.keys()):
        yield CONTENTS.failed(
            name, f"belongs to the release by its recipe, but {SUMS} does not list it", file=name
        )
    for name in sorted(release.sums.keys() - expected):
        yield CONTENTS.failed(name, "does not belong to the release by its recipe", file=name)
    if expected == release.sums.keys():
        yield CONTENTS.passed(f"{len(expected)} files", "are what the recipe makes")


def _derived(
    plan: Plan, release: Release, claims: list[SignedClaim], *, same_code: bool
) -> Iterator[Finding]:
    """The claims of the build are those that follow from the release."""
    made = [claim for claim in claims if claim.kind in BUILD_CLAIMS]
    told = [claim.payload for claim in made]
    derived = [(canonical(one), one) for one in statements(plan, release.digests, release.subject.json)]
    unmatched = [claim for claim in made if claim.payload not in [payload for payload, _ in derived]]
    for payload, statement in derived:
        kind = str(statement["predicateType"])
        if payload in told:
            yield CLAIMED.passed(kind, "follows from the release's own files", file=CLAIMS)
            continue
        other = next((claim for claim in unmatched if claim.kind == kind), None)
        if other is None:
            yield CLAIMED.failed(kind, "this claim of the build is missing", file=CLAIMS)
            continue
        unmatched.remove(other)
        where, expected, found = difference(statement, other.statement)
        about = {"file": CLAIMS, "expected": expected, "found": found}
        if where.startswith("subject") or same_code:
            yield CLAIMED.failed(kind, f"line {other.number} differs from what follows at {where}", **about)
        else:
            detail = f"line {other.number} was made by another version of Herdbook, which puts it otherwise at {where}"
            yield CLAIMED.unverified(kind, detail, **about)
    for claim in unmatched:
        yield CLAIMED.failed(claim.kind, f"line {claim.number} does not follow from the release", file=CLAIMS)
    others = [claim for claim in claims if claim.kind not in BUILD_CLAIMS]
    for claim in others:
        yield CLAIMED.passed(claim.kind, f"line {claim.number} was said later; it is not judged", file=CLAIMS)


def difference(expected: Any, found: Any, where: str = "") -> tuple[str, str, str]:
    """Return where two JSON values first differ, and what is there in each."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key) or (key in expected) != (key in found):
                return difference(expected.get(key), found.get(key), f"{where}.{key}" if where else key)
    if isinstance(expected, list) and isinstance(found, list):
        for index in range(max(len(expected), len(found))):
            one, other = (side[index] if index < len(side) else None for side in (expected, found))
            if one != other:
                return difference(one, other, f"{where}[{index}]")
    return where or "its form", str(expected)[:200], str(found)[:200]
