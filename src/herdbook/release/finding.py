"""What a verification is asked, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from herdbook.errors import (
    DigestMismatchError,
    GoneError,
    SourceError,
    StepError,
    UnverifiedError,
    WrongAnswerError,
)

if TYPE_CHECKING:
    from pathlib import Path


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    UNVERIFIED = "unverified"  # nothing is wrong as far as was seen, but it could not be checked
    BROKEN = "broken"  # the verifier itself; says nothing about the release


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        level: The level that the check belongs to.
        check: What was checked: ``sums``, ``records``, ``signature``, ...
        subject: The file or tensor, or what was counted.
        outcome: How it ended.
        detail: What was compared, or what is wrong.
        expected: The digest or value that it should have.
        found: What it has.
        file: The release's file that it is about, if it is about one.
        tensor: The tensor in it.
        source: Where it should have come from: an upstream file or tensor.
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


@dataclass(frozen=True)
class Check:
    """One check of a level; makes its findings."""

    level: str
    name: str

    def passed(self, subject: str, detail: str, **about: Any) -> Finding:
        """Return that a subject is as it should be; ``about`` are further fields of a finding."""
        return Finding(self.level, self.name, subject, Outcome.PASSED, detail, **about)

    def failed(self, subject: str, detail: str, **about: Any) -> Finding:
        """Return that a subject is not as it should be."""
        return Finding(self.level, self.name, subject, Outcome.FAILED, detail, **about)

    def unverified(self, subject: str, detail: str, **about: Any) -> Finding:
        """Return that a subject could not be checked."""
        return Finding(self.level, self.name, subject, Outcome.UNVERIFIED, detail, **about)

    def error(self, subject: str, error: Exception, **about: Any) -> Finding:
        """Return what an error means for a subject: see ``outcome_of``."""
        return Finding(self.level, self.name, subject, outcome_of(error), str(error), **about)


def outcome_of(error: Exception) -> Outcome:
    """Return what an error that was meant for people means.

    A source that cannot be had now, or not by us, is no proof against a release; neither is a step that cannot be done
    here. What is gone from a place that answers, and bytes, headers and data that contradict what is said of them, are:
    else whoever serves them could choose that nothing is found.
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
        name: What it is called.
        proves: What holds if it passes.
        reads: What it reads.
        cost: What that costs, in words.
    """

    name: str
    proves: str
    reads: str
    cost: str


@dataclass(frozen=True)
class Options:
    """What a person asks of a verification.

    Args:
        key: The public key (PEM) that the release must be signed with.
        identity: Who must have signed it, for keyless signatures.
        issuer: Who must vouch for that identity.
        sample_bytes: How many bytes of the release to compare with upstream; None for all.
        seed: Decides which are drawn.
        inputs: The recipe in the author's folder, or in a copy of it, for what a release does not carry.
        work: A folder for what is made again, which stays; None for one that goes.
    """

    key: Path | None = None
    identity: str | None = None
    issuer: str | None = None
    sample_bytes: int | None = 500_000_000
    seed: int = 0
    inputs: Path | None = None
    work: Path | None = None
