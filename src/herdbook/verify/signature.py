"""The signatures of the claims and of the model.

A signature proves that nothing was changed since it was made. A key identifies the signer only to people who have the key
from another source: without ``--key`` the release's own public key is used, and the finding states that. A keyless
signature has a certificate that names the signer; only ``--identity`` determines whether that is the expected one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from herdbook.errors import HerdbookError, StepError, VerificationError
from herdbook.layout import CLAIMS, PUBLIC_KEY, SIGNATURE, SUMS
from herdbook.provenance.claims import BUILD_CLAIMS
from herdbook.release.finding import Check
from herdbook.release.sums import follows
from herdbook.signing import oms
from herdbook.signing.bundle import Envelope, read
from herdbook.signing.keyless import Identity, Roots
from herdbook.signing.keys import load_public, parse_public

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.recipe import Signer
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.signing.keys import PublicKey

SIGNED = Check("claims", "signature")
UNSIGNED = Check("claims", "unsigned")  # of its own name, so that no line about a signature reads "ok"


@dataclass(frozen=True)
class SignedClaim:
    """A line of the claims that could be read.

    Args:
        number: Its line number, from 1.
        envelope: The statement and its signatures.
    """

    number: int
    envelope: Envelope

    @property
    def kind(self) -> str:
        """The type of the statement's predicate."""
        return str(self.envelope.statement["predicateType"])

    @property
    def statement(self) -> dict[str, Any]:
        """The statement."""
        return self.envelope.statement

    @property
    def payload(self) -> bytes:
        """The statement's bytes, which are signed."""
        return self.envelope.payload


@dataclass(frozen=True)
class ClaimsFile:
    """All claims of a release.

    Args:
        claims: Those that could be read, in order.
        unread: The other lines: number and reason.
    """

    claims: list[SignedClaim]
    unread: list[tuple[int, str]]


def read_claims(release: Release) -> ClaimsFile:
    """Return the claims of a release. Raises VerificationError if the claims file cannot be read."""
    claims, unread = [], []
    for number, line in enumerate(release.claims, start=1):
        try:
            claims.append(SignedClaim(number, read(line, f"{CLAIMS}: line {number}")))
        except VerificationError as error:
            unread.append((number, str(error)))
    return ClaimsFile(claims, unread)


class ExpectedSigner(Protocol):
    """An expected signer."""

    def __str__(self) -> str:
        """Return a description for messages."""

    def objection(self, envelope: Envelope) -> str | None:
        """Return why an envelope is not signed by this signer; None if it is."""


@dataclass(frozen=True)
class KeyHolder:
    """The holder of a private key."""

    key: PublicKey

    def __str__(self) -> str:
        """Return a description for messages."""
        return f"key {self.key.fingerprint}"

    def objection(self, envelope: Envelope) -> str | None:
        """Return why an envelope is not signed by this signer; None if it is."""
        return None if envelope.is_signed_by(self.key) else "is not signed by this key"


@dataclass(frozen=True)
class IdentityOwner:
    """The owner of an identity that an identity provider confirms (keyless)."""

    roots: Roots
    identity: Identity

    def __str__(self) -> str:
        """Return a description for messages."""
        return str(self.identity)

    def objection(self, envelope: Envelope) -> str | None:
        """Return why an envelope is not signed by this signer; None if it is."""
        if not envelope.certified:
            return "is not signed by this identity: it has no certificate"
        try:
            signer = self.roots.identity(envelope)
        except VerificationError as error:
            return str(error)
        return None if signer == self.identity else f"is signed by {signer}"


def check(release: Release, claims: ClaimsFile, options: Options) -> Iterator[Finding]:
    """Check the signatures of the model and of its build claims."""
    signed = SIGNATURE in release.subject.files or any(c.envelope.is_signed for c in claims.claims)
    if not signed:
        yield _unsigned(release, options)
        return
    signer: ExpectedSigner | None = None
    try:
        model = _read_signature(release)
        signer, origin = _expected_signer(release, options, model)
    except (StepError, VerificationError) as error:
        yield SIGNED.error(SIGNATURE, error, file=SIGNATURE)
    else:
        yield from _model(release, model, signer, origin)
    for claim in claims.claims:
        yield from _claim(claim, signer)


def _unsigned(release: Release, options: Options) -> Finding:
    """Return the finding about a release of which nothing is signed.

    Whoever takes a release that is signed can remove its signatures. Only the recipe, which the card follows from, shows then that
    there should be some. So what it names must not pass in silence; a build on a machine without the key states that it knows.
    """
    named, expected = _named(release), options.key or options.identity
    if expected:
        detail = f"is missing: nothing is signed, but a signature by {expected} is required"
        return SIGNED.failed(SIGNATURE, detail, file=SIGNATURE)
    detail = "nothing is signed, so its author is not proven"
    if named is None:
        return UNSIGNED.passed(release.name, detail)
    detail += f", though the recipe names who signs it: {named}"
    if options.unsigned:
        return UNSIGNED.passed(release.name, f"{detail}; accepted, since --unsigned is given")
    remedy = "get a signed copy from its author, or accept it with --unsigned"
    return UNSIGNED.unverified(release.name, f"{detail}; {remedy}", file=SIGNATURE)


def _named(release: Release) -> Signer | None:
    """Return the signer that the recipe names, as far as the recipe can be read."""
    try:
        return release.recipe.release.signer
    except HerdbookError:
        return None


def _is_named(signer: ExpectedSigner, named: Signer) -> bool:
    """Return whether a signer is the one that the recipe names."""
    match signer:
        case KeyHolder():
            return signer.key.fingerprint == named.key
        case IdentityOwner():
            return (signer.identity.name, signer.identity.issuer) == (named.identity, named.issuer)
        case _:
            return False


def _read_signature(release: Release) -> Envelope | None:
    if SIGNATURE not in release.subject.files:
        return None
    return read(release.subject.read(SIGNATURE), SIGNATURE)


def _expected_signer(
    release: Release, options: Options, model: Envelope | None
) -> tuple[ExpectedSigner | None, str]:
    """Return the expected signer, and how messages describe the expectation."""
    if options.key:
        given = load_public(options.key)
        return KeyHolder(given), f"by the key in {options.key}, fingerprint {given.fingerprint}"
    if options.identity and options.issuer:
        identity = Identity(options.identity, options.issuer)
        return IdentityOwner(Roots(), identity), f"by {identity}, as required"
    if model and model.certified:
        roots = Roots()
        identity = roots.identity(model)
        remedy = "pass --identity and --issuer to accept no other signer"
        return IdentityOwner(roots, identity), f"by {identity}; {remedy}"
    if PUBLIC_KEY in release.subject.files:
        key = parse_public(release.subject.read(PUBLIC_KEY), PUBLIC_KEY)
        remedy = "to find out whose key it is, compare it with one that its author published elsewhere, or pass --key"
        return KeyHolder(key), f"by the key in the release itself, fingerprint {key.fingerprint}; {remedy}"
    return None, ""


def _model(
    release: Release, envelope: Envelope | None, signer: ExpectedSigner | None, origin: str
) -> Iterator[Finding]:
    if envelope is None:
        yield SIGNED.failed(SIGNATURE, "is missing, although claims are signed", file=SIGNATURE)
        return
    if signer is None:
        yield SIGNED.unverified(
            SIGNATURE, f"no public key: {PUBLIC_KEY} is missing; pass --key", file=SIGNATURE
        )
        return
    objection = signer.objection(envelope)
    if objection:
        yield SIGNED.failed(SIGNATURE, objection, file=SIGNATURE, **_sides(signer, envelope))
        return
    if (named := _named(release)) and not _is_named(signer, named):
        detail = "is by another signer than the recipe names, and the card with it"
        yield SIGNED.failed(SIGNATURE, detail, file=SIGNATURE, expected=str(named), found=str(signer))
        return
    digests = {**release.sums}
    for name in (SUMS, PUBLIC_KEY):
        if name in release.subject.files:
            digests[name] = hashlib.sha256(release.subject.read(name)).hexdigest()
    signed = oms.signed_digests(envelope)
    wrong = list(oms.differences(signed, digests))
    if len(wrong) > 1 and follows(signed):  # the checksums differ because the others do
        wrong = [each for each in wrong if each[0] != SUMS]
    for name, expected, digest in wrong:
        detail = "was signed with other content" if expected else "did not exist when the model was signed"
        yield SIGNED.failed(
            name, detail, file=name, expected=expected or "no such file", found=digest or "no such file"
        )
    if not wrong:
        yield SIGNED.passed(SIGNATURE, f"signs all {len(digests)} files, {origin}", file=SIGNATURE)


def _claim(claim: SignedClaim, signer: ExpectedSigner | None) -> Iterator[Finding]:
    subject = f"{CLAIMS} line {claim.number}"
    objection = signer.objection(claim.envelope) if signer else "cannot be checked"
    if objection is None:
        yield SIGNED.passed(subject, f"{claim.kind} is signed by the same signer", file=CLAIMS)
    elif claim.kind not in BUILD_CLAIMS:
        how = "signed by another signer" if claim.envelope.is_signed else "not signed"
        yield SIGNED.passed(subject, f"{claim.kind} was added after the build and is {how}", file=CLAIMS)
    elif signer is not None:
        about = _sides(signer, claim.envelope)
        yield SIGNED.failed(subject, f"{claim.kind} {objection}", file=CLAIMS, **about)


def _sides(signer: ExpectedSigner, envelope: Envelope) -> dict[str, str]:
    """Return the expected signer, and the one that the envelope names."""
    actual = "a certificate" if envelope.certified else f"key {envelope.hint or 'none'}"
    return {"expected": str(signer), "found": actual}
