"""Who says so: the claims as they were read, and whose signatures they and the model bear.

A signature proves that nothing was changed since somebody signed. Who that was, a key proves only to those who know it
from elsewhere: without ``--key`` the release's own public key is taken, and the finding says so. A keyless signature has
a certificate that names somebody; whether that is who should have signed, only ``--identity`` decides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from herdbook.errors import StepError, VerificationError
from herdbook.layout import CLAIMS, PUBLIC_KEY, SIGNATURE, SUMS
from herdbook.provenance.claims import BUILD_CLAIMS
from herdbook.release.finding import Check
from herdbook.signing import oms
from herdbook.signing.bundle import Envelope, read
from herdbook.signing.keyless import Identity, Roots
from herdbook.signing.keys import load_public, parse_public

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.signing.keys import PublicKey

SIGNED = Check("claims", "signature")


@dataclass(frozen=True)
class SignedClaim:
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
class ClaimsFile:
    """All claims of a release.

    Args:
        claims: Those that could be read, in order.
        unread: The other lines: their numbers, and why.
    """

    claims: list[SignedClaim]
    unread: list[tuple[int, str]]


def read_claims(release: Release) -> ClaimsFile:
    """Return the claims of a release. Raises VerificationError if there are none that can be read."""
    claims, unread = [], []
    for number, line in enumerate(release.claims, start=1):
        try:
            claims.append(SignedClaim(number, read(line, f"{CLAIMS}: line {number}")))
        except VerificationError as error:
            unread.append((number, str(error)))
    return ClaimsFile(claims, unread)


class Signatory(Protocol):
    """Somebody whose signatures are looked for."""

    def __str__(self) -> str:
        """Return who it is."""

    def objection(self, envelope: Envelope) -> str | None:
        """Return why an envelope is not signed by it; None if it is."""


@dataclass(frozen=True)
class OfKey:
    """Whoever has the private half of a key."""

    key: PublicKey

    def __str__(self) -> str:
        """Return which key it is."""
        return f"key {self.key.fingerprint}"

    def objection(self, envelope: Envelope) -> str | None:
        """Return why an envelope is not signed by it; None if it is."""
        return None if envelope.is_signed_by(self.key) else "is not signed by this key"


@dataclass(frozen=True)
class OfIdentity:
    """Whoever could show an identity provider that they are somebody (keyless)."""

    roots: Roots
    identity: Identity

    def __str__(self) -> str:
        """Return who it is."""
        return str(self.identity)

    def objection(self, envelope: Envelope) -> str | None:
        """Return why an envelope is not signed by it; None if it is."""
        if not envelope.certified:
            return "is not signed by this identity: there is no certificate"
        try:
            found = self.roots.identity(envelope)
        except VerificationError as error:
            return str(error)
        return None if found == self.identity else f"is signed by {found}"


def check(release: Release, claims: ClaimsFile, options: Options) -> Iterator[Finding]:
    """Check the signatures of the model and of the claims of its build."""
    signed = SIGNATURE in release.subject.files or any(c.envelope.is_signed for c in claims.claims)
    if not signed:
        asked = options.key or options.identity
        if asked:
            detail = f"is not there: nothing is signed, but a signature by {asked} was asked for"
            yield SIGNED.failed(SIGNATURE, detail, file=SIGNATURE)
        else:
            yield SIGNED.passed(release.name, "nothing is signed: who made it is not proven")
        return
    signatory: Signatory | None = None
    try:
        model = _read_signature(release)
        signatory, whose = _signatory(release, options, model)
    except (StepError, VerificationError) as error:
        yield SIGNED.error(SIGNATURE, error, file=SIGNATURE)
    else:
        yield from _model(release, model, signatory, whose)
    for claim in claims.claims:
        yield from _claim(claim, signatory)


def _read_signature(release: Release) -> Envelope | None:
    if SIGNATURE not in release.subject.files:
        return None
    return read(release.subject.read(SIGNATURE), SIGNATURE)


def _signatory(release: Release, options: Options, model: Envelope | None) -> tuple[Signatory | None, str]:
    """Return whose signatures are looked for, and how that is told."""
    if options.key:
        return OfKey(load_public(options.key)), f"by {options.key}"
    if options.identity and options.issuer:
        identity = Identity(options.identity, options.issuer)
        return OfIdentity(Roots(), identity), f"by {identity}, who was asked for"
    if model and model.certified:
        roots = Roots()
        identity = roots.identity(model)
        remedy = "give --identity and --issuer to accept nobody else"
        return OfIdentity(roots, identity), f"by {identity}; {remedy}"
    if PUBLIC_KEY in release.subject.files:
        key = parse_public(release.subject.read(PUBLIC_KEY), PUBLIC_KEY)
        remedy = "compare it with what its author says elsewhere, or give --key, to know who that is"
        return OfKey(key), f"by the key in the release itself, fingerprint {key.fingerprint}; {remedy}"
    return None, ""


def _model(
    release: Release, envelope: Envelope | None, signatory: Signatory | None, whose: str
) -> Iterator[Finding]:
    if envelope is None:
        yield SIGNED.failed(SIGNATURE, "is missing, though claims are signed", file=SIGNATURE)
        return
    if signatory is None:
        yield SIGNED.unverified(
            SIGNATURE, f"no public key: {PUBLIC_KEY} is not there, give --key", file=SIGNATURE
        )
        return
    objection = signatory.objection(envelope)
    if objection:
        yield SIGNED.failed(SIGNATURE, objection, file=SIGNATURE, **_sides(signatory, envelope))
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


def _claim(claim: SignedClaim, signatory: Signatory | None) -> Iterator[Finding]:
    subject = f"{CLAIMS} line {claim.number}"
    objection = signatory.objection(claim.envelope) if signatory else "cannot be checked"
    if objection is None:
        yield SIGNED.passed(subject, f"{claim.kind} is signed likewise", file=CLAIMS)
    elif claim.kind not in BUILD_CLAIMS:
        said = "by another" if claim.envelope.is_signed else "by nobody"
        yield SIGNED.passed(subject, f"{claim.kind} was said later, and is signed {said}", file=CLAIMS)
    elif signatory is not None:
        about = _sides(signatory, claim.envelope)
        yield SIGNED.failed(subject, f"{claim.kind} {objection}", file=CLAIMS, **about)


def _sides(signatory: Signatory, envelope: Envelope) -> dict[str, str]:
    """Return who should have signed, and who says to have."""
    found = "a certificate" if envelope.certified else f"key {envelope.hint or 'none'}"
    return {"expected": str(signatory), "found": found}
