"""Who says so: the claims as they were read, and whose signatures they and the model bear.

A signature proves that nothing was changed since somebody signed. Who that was, it proves only to those who know the key
from elsewhere: without ``--key`` the release's own public key is taken, and the finding says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.attest import oms
from herdbook.attest.bundle import Envelope, read
from herdbook.attest.keys import load_public, parse_public
from herdbook.errors import VerificationError
from herdbook.provenance.claims import BOM_TYPE, TEST_RESULT_TYPE
from herdbook.provenance.slsa import PROVENANCE_TYPE
from herdbook.release.layout import CLAIMS, PUBLIC_KEY, SIGNATURE, SUMS
from herdbook.verify.finding import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.attest.keys import PublicKey
    from herdbook.verify.finding import Finding, Options
    from herdbook.verify.release import Release

SIGNED = Check("claims", "signature")
OF_A_BUILD = frozenset({PROVENANCE_TYPE, BOM_TYPE, TEST_RESULT_TYPE})


@dataclass(frozen=True)
class Claim:
    """A line of the claims that could be read.

    Args:
        number: Which line it is, from 1.
        envelope: What it holds.
    """

    number: int
    envelope: Envelope

    @property
    def kind(self) -> str:
        """The type of what is said."""
        return str(self.envelope.statement["predicateType"])

    @property
    def statement(self) -> dict[str, Any]:
        """What is said."""
        return self.envelope.statement

    @property
    def payload(self) -> bytes:
        """The bytes that say it."""
        return self.envelope.payload


@dataclass(frozen=True)
class Claims:
    """All claims of a release.

    Args:
        claims: Those that could be read, in order.
        unread: The other lines: their numbers, and why.
    """

    claims: list[Claim]
    unread: list[tuple[int, str]]


def read_claims(release: Release) -> Claims:
    """Return the claims of a release. Raises VerificationError if there are none that can be read."""
    claims, unread = [], []
    for number, line in enumerate(release.claims, start=1):
        try:
            claims.append(Claim(number, read(line, f"{CLAIMS}: line {number}")))
        except VerificationError as error:
            unread.append((number, str(error)))
    return Claims(claims, unread)


def check(release: Release, claims: Claims, options: Options) -> Iterator[Finding]:
    """Check the signatures of the model and of the claims of its build."""
    signed = SIGNATURE in release.subject.files or any(c.envelope.is_signed for c in claims.claims)
    if not signed:
        if options.key:
            detail = f"is not there: nothing is signed, but a signature by {options.key} was asked for"
            yield SIGNED.failed(SIGNATURE, detail, file=SIGNATURE)
        else:
            yield SIGNED.passed(release.name, "nothing is signed: who made it is not proven")
        return
    key, whose = _key(release, options)
    yield from _model(release, key, whose)
    for claim in claims.claims:
        yield from _claim(claim, key)


def _key(release: Release, options: Options) -> tuple[PublicKey | None, str]:
    if options.key:
        return load_public(options.key), f"by {options.key}"
    if PUBLIC_KEY in release.subject.files:
        key = parse_public(release.subject.read(PUBLIC_KEY), PUBLIC_KEY)
        remedy = "compare it with what its author says elsewhere, or give --key, to know who that is"
        return key, f"by the key in the release itself, fingerprint {key.fingerprint}; {remedy}"
    return None, ""


def _model(release: Release, key: PublicKey | None, whose: str) -> Iterator[Finding]:
    if SIGNATURE not in release.subject.files:
        yield SIGNED.failed(SIGNATURE, "is missing, though claims are signed", file=SIGNATURE)
        return
    envelope = read(release.subject.read(SIGNATURE), SIGNATURE)
    if key is None:
        yield SIGNED.impossible(
            SIGNATURE, f"no public key: {PUBLIC_KEY} is not there, give --key", file=SIGNATURE
        )
        return
    if not envelope.is_signed_by(key):
        about = {"expected": f"key {key.fingerprint}", "found": f"key {envelope.hint or 'unknown'}"}
        if envelope.certified:
            detail = "is signed without a key of its own (keyless), which is not verified here: use `model_signing verify sigstore`"
            yield SIGNED.impossible(SIGNATURE, detail, file=SIGNATURE, **about)
        else:
            yield SIGNED.failed(SIGNATURE, "is not a signature by this key", file=SIGNATURE, **about)
        return
    found = {**release.sums}
    for name in (SUMS, PUBLIC_KEY):
        if name in release.subject.files:
            found[name] = hashlib.sha256(release.subject.read(name)).hexdigest()
    wrong = list(oms.differences(oms.signed_digests(envelope), found))
    for name, expected, digest in wrong:
        detail = "was signed with another content" if expected else "was not there when the model was signed"
        yield SIGNED.failed(
            name, detail, file=name, expected=expected or "no such file", found=digest or "no such file"
        )
    if not wrong:
        yield SIGNED.passed(SIGNATURE, f"signs all {len(found)} files, {whose}", file=SIGNATURE)


def _claim(claim: Claim, key: PublicKey | None) -> Iterator[Finding]:
    subject = f"{CLAIMS} line {claim.number}"
    if key is not None and claim.envelope.is_signed_by(key):
        yield SIGNED.passed(subject, f"{claim.kind} is signed by the same key", file=CLAIMS)
    elif claim.kind not in OF_A_BUILD:
        said = "by another key" if claim.envelope.is_signed else "by nobody"
        yield SIGNED.passed(subject, f"{claim.kind} was said later, and is signed {said}", file=CLAIMS)
    elif key is not None:
        about = {"expected": f"key {key.fingerprint}", "found": f"key {claim.envelope.hint or 'none'}"}
        yield SIGNED.failed(subject, f"{claim.kind} is not signed by this key", file=CLAIMS, **about)
