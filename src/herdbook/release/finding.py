"""The options of a verification, and its findings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypedDict, Unpack

from herdbook.errors import (
    DigestMismatchError,
    GoneError,
    SourceError,
    StepError,
    UnverifiedError,
    WrongAnswerError,
    message,
)

if TYPE_CHECKING:
    from pathlib import Path


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    UNVERIFIED = "unverified"  # it could not be checked, or not completely; no problem was found
    BROKEN = "broken"  # the verifier itself failed; the release may be good or bad


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        level: The level that the check belongs to.
        check: The check: ``sums``, ``records``, ``signature``, ...
        subject: The file or tensor, or a count of them.
        outcome: How it ended.
        detail: What was compared, or the problem.
        expected: The expected digest or value.
        found: The actual digest or value.
        file: The file of the release that it is about, if any.
        tensor: The tensor in that file.
        source: The upstream file or tensor that it should be from.
    """

    level: str
    check: str
    subject: str
    outcome: Outcome
    detail: str
    expected: str | None = None
    found: str | None = None
    file: str | None = None
    tensor: str | None = None
    source: str | None = None


class About(TypedDict, total=False):
    """The fields of a finding that not every check has; see ``Finding``."""

    expected: str | None
    found: str | None
    file: str | None
    tensor: str | None
    source: str | None


@dataclass(frozen=True)
class Check:
    """One check of a level; creates its findings."""

    level: str
    name: str

    def passed(self, subject: str, detail: str, **about: Unpack[About]) -> Finding:
        """Return that a subject is as it should be; ``about`` are further fields of a finding."""
        return Finding(self.level, self.name, subject, Outcome.PASSED, detail, **about)

    def failed(self, subject: str, detail: str, **about: Unpack[About]) -> Finding:
        """Return that a subject is not as it should be."""
        return Finding(self.level, self.name, subject, Outcome.FAILED, detail, **about)

    def unverified(self, subject: str, detail: str, **about: Unpack[About]) -> Finding:
        """Return that a subject could not be checked."""
        return Finding(self.level, self.name, subject, Outcome.UNVERIFIED, detail, **about)

    def error(self, subject: str, error: Exception, **about: Unpack[About]) -> Finding:
        """Return the finding for an error; see ``outcome_of``."""
        detail = message(error).removeprefix(f"{subject}: ")
        return Finding(self.level, self.name, subject, outcome_of(error), detail, **about)


def outcome_of(error: Exception) -> Outcome:
    """Return the outcome that follows from an error.

    An unavailable source does not prove anything against a release, and neither does a step that cannot run on this machine.
    Both are unverified. A server that answers without the file, and bytes, headers and data that contradict their
    description, are failures: otherwise whoever serves them could hide a problem by answering wrongly.
    """
    match error:
        case GoneError() | DigestMismatchError() | WrongAnswerError():
            return Outcome.FAILED
        case UnverifiedError() | SourceError() | StepError() | OSError():
            return Outcome.UNVERIFIED
    return Outcome.FAILED


@dataclass(frozen=True)
class Level:
    """How far a verification goes. Each level includes those before it.

    Args:
        name: Its name.
        proves: What a pass proves.
        reads: What it reads.
        cost: What that costs, in words.
    """

    name: str
    proves: str
    reads: str
    cost: str


@dataclass(frozen=True)
class Options:
    """The options of a verification.

    Args:
        key: The public key (PEM) that the release must be signed with.
        identity: The identity that must have signed it, for keyless signatures.
        issuer: The identity provider that must confirm the identity.
        sample_bytes: How many bytes of the release to compare with upstream; None for all.
        seed: Seed of the random sample.
        inputs: The recipe in the author's folder, or in a copy of it, for inputs that a release does not include.
        work: A folder for rebuilt files, which is kept; None for a temporary one.
        expect: The digest that the release must have, 64 hexadecimal digits.
        not_before: The tag of its repository that the release must not be older than.
        unsigned: Whether a release may be unsigned whose recipe names who signs it.
    """

    key: Path | None = None
    identity: str | None = None
    issuer: str | None = None
    sample_bytes: int | None = 500_000_000
    seed: int = 0
    inputs: Path | None = None
    work: Path | None = None
    expect: str | None = None
    not_before: str | None = None
    unsigned: bool = False
