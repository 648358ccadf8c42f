"""Every error that Herdbook raises for its users.

HerdbookError                 exit status 1
├── RecipeError               the recipe, or the plan that follows from it, is invalid        2
├── LockError                 the lock is missing, stale or unreadable                        3
├── SourceError               a source is missing, unreachable or not allowed                 4
│   ├── GoneError             the server answers, but has no such revision or file            4
│   ├── UnreachableError      the server does not answer                                      4
│   ├── WrongAnswerError      the server's answer contradicts itself or the request           4
│   └── DigestMismatchError   bytes do not match the pinned digest                            5
├── CheckpointError           a weights file is damaged or does not match its record          6
├── StepError                 a step failed (evaluation, quantization, card, ...)             7
├── VerificationError         a release is not what it claims to be                           8
│   ├── NoReleaseError        what should be verified has nothing of a release               2
│   └── UnverifiedError       nothing is wrong, but something could not be checked            9
└── CacheError                the cache cannot be used                                       11

`herdbook verify` exits with 10 if the verifier itself failed, which is no evidence about the release.

A message contains what is wrong, where (file, key or tensor), what was expected and what to do.
The command line prints it after the filter of `herdbook.visible`, and exits with the status above; `--debug` adds the traceback.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


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

    def by_line(self) -> RecipeError:
        """Return the same error with its problems by their lines; those without one are last."""
        pairs = sorted(
            zip(self.problems, self.at, strict=True), key=lambda one: (one[1] is None, one[1] or 0)
        )
        return RecipeError([problem for problem, _ in pairs], self.file, [line for _, line in pairs])


class LockError(HerdbookError):
    """The lock is missing, unreadable, or belongs to another recipe."""

    exit_status = 3


class SourceError(HerdbookError):
    """A source is unavailable, or contains something that is not accepted."""

    exit_status = 4


class GoneError(SourceError):
    """A source's server answers, but does not have the pinned revision or file, or no longer."""


class UnreachableError(SourceError):
    """A source's server does not answer, or fails, so that others that it has are not asked for."""


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


class NoReleaseError(VerificationError):
    """What should be verified has no file that only releases have, so that nothing in it says that it is one."""

    exit_status = 2


class UnverifiedError(VerificationError):
    """No error was found in a release, but something could not be checked."""

    exit_status = 9


class CacheError(HerdbookError):
    """The cache is missing, not writable, or lost an entry."""

    exit_status = 11


def message(error: BaseException) -> str:
    """Return what an error says; one of the system with its file, and without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


class Gathered:
    """The errors of things that do not depend on each other, so that one does not hide the others.

    Args:
        locate: Returns the error for problems of a recipe, with their lines, from these problems.

    Attributes:
        errors: The errors so far, in order.
    """

    def __init__(self, locate: Callable[[list[str]], RecipeError] | None = None) -> None:
        self.errors: list[HerdbookError] = []
        self._locate = locate
        self._places: dict[int, str] = {}  # where the recipe names what an error is about, by its position

    @contextmanager
    def one(self, place: str = "") -> Iterator[None]:
        """Keep an error until ``end``.

        Args:
            place: The key of the recipe that names what is looked at, for errors that do not begin with it.

        Raises:
            HerdbookError: If a server does not answer, with what was found before: to ask it again would only take time.
        """
        try:
            yield
        except HerdbookError as error:
            self.add(error, place)
            if isinstance(error, UnreachableError):
                self.end()

    def add(self, error: HerdbookError, place: str = "") -> None:
        """Keep an error that was not raised; ``place`` as in ``one``."""
        if place:
            self._places[len(self.errors)] = place
        self.errors.append(error)

    def end(self) -> None:
        """Raise what was found as one error, if anything was.

        Raises:
            HerdbookError: The error itself, if there is one. Of several, it is one of the recipe if any is, with all their lines.
        """
        if not self.errors:
            return
        placed = merged(list(self._located(self._locate))).by_line() if self._locate else None
        if placed and any(isinstance(error, RecipeError) for error in self.errors):
            raise placed
        if len(self.errors) == 1:
            if placed:
                self.errors[0].args = ("\n".join(placed.lines),)
            raise self.errors[0]
        if all(isinstance(error, RecipeError) for error in self.errors):
            raise merged([error for error in self.errors if isinstance(error, RecipeError)])
        lines = placed.lines if placed else [line for error in self.errors for line in error.lines]
        lines = list(dict.fromkeys(lines))
        kinds = {type(error) for error in self.errors}
        if any(isinstance(error, RecipeError) for error in self.errors):
            raise RecipeError(lines)
        if all(isinstance(error, SourceError) for error in self.errors):
            raise SourceError("\n".join(lines))
        raise (kinds.pop() if len(kinds) == 1 else StepError)("\n".join(lines))

    def _located(self, locate: Callable[[list[str]], RecipeError]) -> Iterator[RecipeError]:
        """Yield all errors as those of the recipe, with the lines that their problems are at."""
        for position, error in enumerate(self.errors):
            if isinstance(error, RecipeError) and error.file:
                yield error
            elif isinstance(error, RecipeError):
                yield locate(error.problems)
            else:
                place = self._places.get(position)
                problems = re.split(
                    r"\n(?! )", str(error)
                )  # a line that is indented belongs to the one before
                yield locate([f"{place}: {problem}" if place else problem for problem in problems])


def merged(errors: Sequence[RecipeError]) -> RecipeError:
    """Return one error with the problems of several, each once."""
    files = {error.file for error in errors}
    if len(files) > 1:
        return RecipeError(list(dict.fromkeys(line for error in errors for line in error.lines)))
    found = dict.fromkeys(pair for error in errors for pair in zip(error.problems, error.at, strict=True))
    return RecipeError([problem for problem, _ in found], files.pop(), [line for _, line in found])
