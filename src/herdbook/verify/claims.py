"""The level `claims`: the claims follow from the release's own files, and the signatures are valid.

Each claim of a build is derived from the files and compared byte by byte, so a removed, added or altered claim is found.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from herdbook.errors import RecipeError, UnverifiedError, VerificationError
from herdbook.files import dump_json
from herdbook.layout import BOMS, CLAIMS, LINEAGE, SUMS
from herdbook.plan.code import RecordedCode, as_recorded, listed
from herdbook.plan.parsed import PACKAGE
from herdbook.plan.release import PROVENANCE_CODE, computed_files, contents
from herdbook.provenance.bom import bom
from herdbook.provenance.claims import BUILD_CLAIMS, canonical, statements
from herdbook.provenance.slsa import BUILD_TYPE, PROVENANCE_TYPE, codes
from herdbook.release.finding import Check, Outcome
from herdbook.release.reader import caught, damaged, derived
from herdbook.release.sums import follows, format_sums
from herdbook.verify import pedigree, pins, side_files, signature
from herdbook.verify.differences import difference
from herdbook.verify.gguf import check as gguf_headers
from herdbook.verify.results import check as results

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from herdbook.plan import Plan
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.signature import SignedClaim

LEVEL = "claims"
CONTENTS = Check(LEVEL, "contents")
CLAIMED = Check(LEVEL, "claims")
CODE = Check(LEVEL, "code")
BILLS = Check(LEVEL, "bills")
VERSION = re.compile(r"[0-9][0-9A-Za-z]*([.+-][0-9A-Za-z]+)*")


@dataclass(frozen=True)
class RecordedBuild:
    """What the provenance records of the build.

    Args:
        keys: The keys of the models, by name.
        code: The code that they depend on.
        type: The build type, which defines how keys follow from recipe, lock and code.
    """

    keys: dict[str, Any]
    code: RecordedCode
    type: str

    def plan(self, release: Release, *paths: Path) -> Plan:
        """Return the plan that follows from a release's recipe and lock, with the keys of the recorded code.

        It is called inside ``as_recorded``.

        Args:
            release: The release.
            paths: See ``Release.make_plan``.

        Raises:
            VerificationError: If the release cannot be planned in the way that its build type defines.
            UnverifiedError: The same, if it names another version of Herdbook, which may have planned it.
        """
        if self.type != BUILD_TYPE:
            raise self.code.error(f"{CLAIMS}: the build type is {self.type}, not {BUILD_TYPE}")
        try:
            return release.make_plan(*paths)
        except UnverifiedError as error:
            if self.code.is_of_another_version:
                raise
            # a lock in the format of another version, which the named one does not write
            raise VerificationError(f"{error} The provenance names Herdbook {self.code.version}") from error
        except (RecipeError, VerificationError) as error:
            if self.code.is_of_another_version:
                raise self.code.error(f"the installed version cannot plan it: {error}") from error
            raise


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Check claims and signatures, and the pedigree that supports them."""
    claims = signature.read_claims(release)
    yield from (
        CLAIMED.passed(f"line {number}", f"cannot be read and is ignored: {why}", file=CLAIMS)
        for number, why in claims.unread
    )
    yield from signature.check(release, claims, options)
    yield from caught(pins.check(release), pins.PINS, release)
    build = _recorded_build(claims.claims)
    with as_recorded(build.code):
        plan = build.plan(release)
        yield from _code(plan, build.code)
        yield from caught(pedigree.keys(plan, build.keys), pedigree.KEYS, release)
        steps = [*caught(derived(pedigree.records(plan, release)), pedigree.STEPS, release)]
        yield from steps
        yield from caught(derived(pedigree.origins(plan, release)), pedigree.ORIGINS, release)
        beside = derived(side_files.check(plan, release, build.code))
        yield from caught(beside, side_files.BESIDE, release)
        headers = derived(gguf_headers.check(plan, release, build.code))
        yield from caught(headers, gguf_headers.HEADERS, release)
        made = derived(results.check(plan, release, build.code))
        yield from caught(made, results.RESULTS, release)
        yield from caught(_subjects(release, claims.claims), CLAIMED, release)
        written = [
            (_contents(plan, release), CONTENTS),
            (derived(_derived(plan, release, claims.claims)), CLAIMED),
            (derived(_bills(plan, release, claims.claims)), BILLS),
        ]
        if LINEAGE not in computed_files(plan):
            pass
        elif all(finding.outcome is Outcome.PASSED for finding in steps):
            written.append((derived(pedigree.lineage(plan, release)), pedigree.LINEAGES))
        else:  # other records may cite each other in a circle
            detail = "cannot be derived from records that do not match the steps"
            yield pedigree.LINEAGES.unverified(LINEAGE, detail)
        excused = build.code.is_of_another_version and PROVENANCE_CODE.describe().changed_modules
        for findings, about in written:
            for finding in caught(findings, about, release):
                yield _excused(finding, build.code) if excused else finding


def _excused(finding: Finding, code: RecordedCode) -> Finding:
    """Return a failure to derive what other code wrote as unverified: that code may have written it in another way."""
    if finding.outcome is not Outcome.FAILED:
        return finding
    return replace(finding, outcome=Outcome.UNVERIFIED, detail=f"{finding.detail}. {code.advice}")


def _changed(release: Release, claims: list[SignedClaim]) -> dict[tuple[str, str], list[int]]:
    """Return the files that have other digests than the claims of the build state: name and stated digest, and in which lines.

    Other subjects of claims are files of models that were measured, and are not in the release.

    Raises:
        VerificationError: If a claim is damaged.
    """
    changed: dict[tuple[str, str], list[int]] = {}
    for claim in claims:
        if claim.kind not in BUILD_CLAIMS:
            continue
        with damaged(f"{CLAIMS}: line {claim.number}"):
            subject = {entry["name"]: str(entry["digest"]["sha256"]) for entry in claim.statement["subject"]}
        wrong = [name for name, sha256 in subject.items() if release.digests.get(name, sha256) != sha256]
        if len(wrong) > 1 and SUMS in wrong and follows(subject):  # it differs because the others do
            wrong.remove(SUMS)
        for name in wrong:
            changed.setdefault((name, subject[name]), []).append(claim.number)
    return changed


def _subjects(release: Release, claims: list[SignedClaim]) -> Iterator[Finding]:
    """Check the digests of the release's files in the claims of the build, whatever version wrote these."""
    for (name, sha256), numbers in _changed(release, claims).items():
        where = f"{'line' if len(numbers) == 1 else 'lines'} {', '.join(map(str, numbers))} of {CLAIMS}"
        detail = f"is another file than the one that {where} {'is' if len(numbers) == 1 else 'are'} about"
        yield CLAIMED.failed(name, detail, file=name, expected=sha256, found=release.digests[name])


def _as_claimed(release: Release, claims: list[SignedClaim]) -> dict[str, str]:
    """Return the digests of the release's files, and for those that ``_subjects`` reports, the digests that the claims state.

    What follows from them is no second fault.
    """
    digests = dict(release.digests)
    changed = dict(_changed(release, claims).keys())
    if not changed:
        return digests
    digests |= changed
    if SUMS not in changed:
        listed = {name: sha256 for name, sha256 in digests.items() if name != SUMS}
        digests[SUMS] = hashlib.sha256(format_sums(listed).encode()).hexdigest()
    return digests


def _code(plan: Plan, recorded: RecordedCode) -> Iterator[Finding]:
    """Check that the code of a build by this version of Herdbook is the installed code; report if another version built it."""
    described = codes(plan)
    changed = [code for code in described if code.changed_modules]
    if not changed:
        yield CODE.passed(f"{len(described)} operations", "were done by the code that is installed here")
    elif recorded.is_of_another_version:
        names = listed([code.of.name for code in changed])
        detail = (
            f"were done by other code than is installed here, as the builder asserts; levels that rerun them need "
            f"Herdbook {recorded.version}: pip install herdbook=={recorded.version}"
        )
        yield CODE.passed(names, detail)
    else:
        for code in changed:
            name = code.changed_modules[0]
            yield CODE.failed(
                code.of.name,
                f"the provenance names Herdbook {recorded.version}, but other code than that of the installed "
                f"{recorded.version}: {listed(code.changed_modules)}",
                expected=code.of.installed().modules.get(name, "no such module"),
                found=code.modules.get(name, "no such module"),
                file=CLAIMS,
            )


def recorded(release: Release) -> RecordedBuild:
    """Return what the provenance of a release records of its build.

    Raises:
        VerificationError: If the provenance is missing or damaged.
    """
    return _recorded_build(signature.read_claims(release).claims)


def _recorded_build(claims: list[SignedClaim]) -> RecordedBuild:
    """Return what the provenance records. Raises VerificationError if it is missing or damaged."""
    for claim in claims:
        if claim.kind == PROVENANCE_TYPE:
            with damaged(f"{CLAIMS}: the provenance"):
                return _read_build(claim.statement["predicate"])
    raise VerificationError(f"{CLAIMS}: contains no provenance")


def _read_build(predicate: Mapping[str, Any]) -> RecordedBuild:
    """Read the predicate of the provenance. Raises LookupError, TypeError or ValueError if it is damaged."""
    definition = predicate["buildDefinition"]
    version = predicate["runDetails"]["builder"]["version"][PACKAGE]
    if not VERSION.fullmatch(version):  # people copy it from the advice into a shell
        raise ValueError(f"{version!r} is not a version")
    internal = definition["internalParameters"]
    operations = {
        name: {
            kind: {key: str(value) for key, value in operation[kind].items()}
            for kind in ("modules", "packages")
        }
        for name, operation in internal.get("operations", {}).items()
    }
    return RecordedBuild(
        dict(internal["keys"]), RecordedCode(version, operations), str(definition["buildType"])
    )


def _contents(plan: Plan, release: Release) -> Iterator[Finding]:
    """Check that the release contains the files that its recipe makes, no more and no less."""
    expected = {*contents(plan), *computed_files(plan)}
    for name in sorted(expected - release.sums.keys()):
        yield CONTENTS.failed(name, f"is made by the recipe, but {SUMS} does not list it", file=name)
    for name in sorted(release.sums.keys() - expected):
        yield CONTENTS.failed(name, "is not made by the recipe", file=name)
    if expected == release.sums.keys():
        yield CONTENTS.passed(f"{len(expected)} files", "are exactly those that the recipe makes")


def _bills(plan: Plan, release: Release, claims: list[SignedClaim]) -> Iterator[Finding]:
    """Check that the bills of materials follow from the release."""
    outside = {*BOMS.values(), SUMS}
    digests = {name: sha256 for name, sha256 in _as_claimed(release, claims).items() if name not in outside}
    wrong = False
    for version, name in BOMS.items():
        ours, theirs = bom(plan, version, digests, release.subject.json), release.subject.json(name)
        if dump_json(ours).encode() != release.subject.read(name):
            wrong = True
            where, expected, found = difference(json.loads(dump_json(ours)), theirs)
            detail = f"differs from the derived bill at {where}"
            yield BILLS.failed(name, detail, file=name, expected=expected, found=found)
    if not wrong:
        yield BILLS.passed(f"{len(BOMS)} bills of materials", "follow from the release's own files")


def _derived(plan: Plan, release: Release, claims: list[SignedClaim]) -> Iterator[Finding]:
    """Check that the claims of the build are those that follow from the release."""
    build_claims = [claim for claim in claims if claim.kind in BUILD_CLAIMS]
    payloads = [claim.payload for claim in build_claims]
    expected_claims = [
        (canonical(claim), claim)
        for claim in statements(plan, _as_claimed(release, claims), release.subject.json, release.lineage())
    ]
    unmatched = [
        claim for claim in build_claims if claim.payload not in [payload for payload, _ in expected_claims]
    ]
    for payload, statement in expected_claims:
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
        yield CLAIMED.failed(
            kind,
            f"line {candidate.number} differs from the derived claim at {where}",
            file=CLAIMS,
            expected=expected,
            found=found,
        )
    for claim in unmatched:
        yield CLAIMED.failed(claim.kind, f"line {claim.number} does not follow from the release", file=CLAIMS)
    later = [claim for claim in claims if claim.kind not in BUILD_CLAIMS]
    for claim in later:
        yield CLAIMED.passed(
            claim.kind, f"line {claim.number} was added after the build and is not checked", file=CLAIMS
        )
