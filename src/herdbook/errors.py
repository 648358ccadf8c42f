"""Every error that Herdbook raises for a person to read.

HerdbookError                 exit status 1
├── RecipeError               the recipe, or the plan that follows from it, is impossible     2
├── LockError                 the lock is missing, stale or unreadable                        3
├── SourceError               a source is missing, unreachable or not allowed                 4
│   ├── GoneError             the place answers, but has no such revision or file             4
│   ├── WrongAnswerError      the place answers, but otherwise than it says of itself         4
│   └── DigestMismatchError   bytes are not those that were pinned                            5
├── CheckpointError           a weights file is damaged or not what its record says           6
├── StepError                 a step cannot do its work (evaluation, quantization, card, ...) 7
├── VerificationError         a release is not what it says                                   8
│   └── UnverifiedError       nothing is wrong, but something could not be checked            9
└── CacheError                the cache cannot be used                                       11

`herdbook verify` ends with 10 if it broke itself: that says nothing about the release.

A message names what is wrong, where (file, key or tensor), what was expected and what to do.
The command line prints it as it is and exits with the status above; `--debug` adds the traceback.
"""

from __future__ import annotations

from typing import ClassVar


class HerdbookError(Exception):
    """Base of all errors that are meant for people."""

    exit_status: ClassVar[int] = 1


class RecipeError(HerdbookError):
    """The recipe cannot be read, or asks for something that cannot be built.

    Args:
        problems: One line each; all problems that were found, so that a person mends them in one go.
        file: The recipe's path as the person typed it, if known.
    """

    exit_status = 2

    def __init__(self, problems: str | list[str], file: str | None = None) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        prefix = f"{file}: " if file else ""
        super().__init__("\n".join(prefix + problem for problem in self.problems))


class LockError(HerdbookError):
    """The lock is missing, unreadable, or belongs to another recipe."""

    exit_status = 3


class SourceError(HerdbookError):
    """A source cannot be had, or holds something that is not accepted."""

    exit_status = 4


class GoneError(SourceError):
    """A source's place answers, but no longer has what was pinned, or never had it."""


class WrongAnswerError(SourceError):
    """A source's place answers, but with what contradicts its own description of the source, or what was asked."""


class DigestMismatchError(SourceError):
    """Bytes differ from what was pinned.

    Args:
        what: The file or tensor.
        expected: The pinned digest, as hexadecimal digits.
        found: The digest of what is there.
        remedy: What to do about it.
    """

    exit_status = 5

    def __init__(self, what: str, expected: str, found: str, remedy: str = "") -> None:
        self.expected, self.found = expected, found
        super().__init__(
            f"{what}: expected digest {expected}, found {found}." + (f" {remedy}" if remedy else "")
        )


class CheckpointError(HerdbookError):
    """A weights file is damaged, or not what its header or record says."""

    exit_status = 6


class StepError(HerdbookError):
    """A step cannot do its work."""

    exit_status = 7


class VerificationError(HerdbookError):
    """A release is not what it says."""

    exit_status = 8


class UnverifiedError(VerificationError):
    """Nothing is known to be wrong with a release, but something could not be checked."""

    exit_status = 9


class CacheError(HerdbookError):
    """The cache is missing, cannot be written to, or lost what it had."""

    exit_status = 11
