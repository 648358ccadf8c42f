"""Every error that Herdbook raises for its users.

HerdbookError                 exit status 1
├── RecipeError               the recipe, or the plan that follows from it, is invalid        2
├── LockError                 the lock is missing, stale or unreadable                        3
├── SourceError               a source is missing, unreachable or not allowed                 4
│   ├── GoneError             the server answers, but has no such revision or file            4
│   ├── WrongAnswerError      the server's answer contradicts itself or the request           4
│   └── DigestMismatchError   bytes do not match the pinned digest                            5
├── CheckpointError           a weights file is damaged or does not match its record          6
├── StepError                 a step failed (evaluation, quantization, card, ...)             7
├── VerificationError         a release is not what it claims to be                           8
│   └── UnverifiedError       nothing is wrong, but something could not be checked            9
└── CacheError                the cache cannot be used                                       11

`herdbook verify` exits with 10 if the verifier itself failed, which is no evidence about the release.

A message contains what is wrong, where (file, key or tensor), what was expected and what to do.
The command line prints it after the filter of `herdbook.visible`, and exits with the status above; `--debug` adds the traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class HerdbookError(Exception):
    """Base of all errors for users."""

    exit_status: ClassVar[int] = 1

    @property
    def lines(self) -> list[str]:
        """The message in lines; those after the first are indented, so that no text in it looks like a message of its own."""
        first, *rest = str(self).split("\n")
        return [first, *(f"  {line}" for line in rest)]


class RecipeError(HerdbookError):
    """The recipe cannot be read, or cannot be built.

    Args:
        problems: All problems, one line each, so that they can be fixed in one go.
        file: The recipe's path as the user typed it, if known.
        at: The line of the file that each problem is at, from 1; None where it is not known.
    """

    exit_status = 2

    def __init__(
        self, problems: str | list[str], file: str | None = None, at: Sequence[int | None] = ()
    ) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.file, self.at = file, tuple(at) or (None,) * len(self.problems)
        prefix = f"{file}: " if file else ""
        super().__init__("\n".join(prefix + problem for problem in self.problems))

    @property
    def lines(self) -> list[str]:
        """The message in lines: one for each problem, with its place."""
        prefix = f"{self.file}: " if self.file else ""
        return [
            f"{prefix}{f'line {line}: ' if line else ''}{problem}"
            for problem, line in zip(self.problems, self.at, strict=True)
        ]


class LockError(HerdbookError):
    """The lock is missing, unreadable, or belongs to another recipe."""

    exit_status = 3


class SourceError(HerdbookError):
    """A source is unavailable, or contains something that is not accepted."""

    exit_status = 4


class GoneError(SourceError):
    """A source's server answers, but does not have the pinned revision or file, or no longer."""


class WrongAnswerError(SourceError):
    """A source's server gave an answer that contradicts itself, its own description of the source, or the request."""


class DigestMismatchError(SourceError):
    """Bytes do not match their pinned digest.

    Args:
        what: The file or tensor.
        expected: The pinned digest, as hexadecimal digits.
        found: The digest of the bytes.
        remedy: What to do about it.
    """

    exit_status = 5

    def __init__(self, what: str, expected: str, found: str, remedy: str = "") -> None:
        self.expected, self.found = expected, found
        super().__init__(
            f"{what}: expected digest {expected}, found {found}." + (f" {remedy}" if remedy else "")
        )


class CheckpointError(HerdbookError):
    """A weights file is damaged, or does not match its header or record."""

    exit_status = 6


class StepError(HerdbookError):
    """A step failed."""

    exit_status = 7


class VerificationError(HerdbookError):
    """A release is not what it claims to be."""

    exit_status = 8


class UnverifiedError(VerificationError):
    """No error was found in a release, but something could not be checked."""

    exit_status = 9


class CacheError(HerdbookError):
    """The cache is missing, not writable, or lost an entry."""

    exit_status = 11
