"""The levels of verification: each includes those before it. Defines them and runs them."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from herdbook.errors import HerdbookError
from herdbook.release.finding import Check, Finding, Level, Outcome, outcome_of
from herdbook.release.reader import caught
from herdbook.verify import files, proofs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from herdbook.release.finding import Options
    from herdbook.release.reader import Release

    Checks = Callable[[Release, Options], Iterator[Finding]]


def _claims(release: Release, options: Options) -> Iterator[Finding]:
    from herdbook.verify import claims

    return claims.check(release, options)


def _upstream(release: Release, options: Options) -> Iterator[Finding]:
    from herdbook.verify import upstream

    return upstream.check(release, options)


def _equality(release: Release, options: Options) -> Iterator[Finding]:
    from herdbook.verify import equality

    return equality.check(release, options)


def _recompute(release: Release, options: Options) -> Iterator[Finding]:
    from herdbook.verify.rebuild import recompute

    return recompute.check(release, options)


def _rebuild(release: Release, options: Options) -> Iterator[Finding]:
    from herdbook.verify.rebuild import build

    return build.check(release, options)


# A level is imported when it is run; all include the first.
LEVELS: dict[str, tuple[Level, Checks]] = {
    level.name: (level, checks)
    for level, checks in (
        (
            Level(
                files.LEVEL,
                "the files are those that the checksums list, the weights match their records, and the model loads whole",
                "a folder: every byte; the Hub: its own digests, headers, small files",
                "one pass over the disk; some MB from the Hub",
            ),
            files.check,
        ),
        (
            Level(
                "claims",
                "claims, keys and lineage follow from the release itself, and whatever is signed has a valid signature",
                "claims, records, lineage, signature",
                "seconds",
            ),
            _claims,
        ),
        (
            Level(
                "upstream",
                "each pinned source still exists, as its owner's, with the digests that were pinned, and states what the lock records of it",
                "the Hub's description of each source, the headers of its weights, its small files",
                "a few requests and MB per source",
            ),
            _upstream,
        ),
        (
            Level(
                "equality",
                "bytes declared as copies are equal to those of the sources",
                "the same ranges of release and sources",
                "twice the sample, or twice the release",
            ),
            _equality,
        ),
        (
            Level(
                "recomputed",
                "recomputing what is not a copy gives the same bytes: matrices, routers, GGUF files, and the card from the records",
                "the upstream inputs of the sample; the model that the prompts ran through",
                "minutes; with the sample `all`, hours",
            ),
            _recompute,
        ),
        (
            Level(
                "rebuild",
                "rebuilding everything from upstream gives the same bytes",
                "all sources",
                "as much as the build",
            ),
            _rebuild,
        ),
    )
}


@dataclass(frozen=True)
class LevelResult:
    """The result of running a level.

    Args:
        level: The level.
        findings: Its findings.
        read_bytes: How many bytes it read, from release and sources.
        seconds: Its duration.
        unproven: Statements of the release that are not proven after it.
    """

    level: Level
    findings: tuple[Finding, ...]
    read_bytes: int
    seconds: float
    unproven: tuple[str, ...] = ()


def run(release: Release, last: str, options: Options) -> Iterator[LevelResult]:
    """Run all levels up to the last one. A failure does not stop later levels, so one run reports all problems.

    Args:
        release: The release.
        last: The last level's name.
        options: The options of the verification.
    """
    names = list(LEVELS)
    for name in names[: names.index(last) + 1]:
        level, checks = LEVELS[name]
        started, before = time.monotonic(), release.read_bytes
        whole = Check(name, "level")
        findings = tuple(guarded(level, release.name, partial(_run, checks, whole, release, options)))
        read_bytes, seconds = release.read_bytes - before, time.monotonic() - started
        unproven = proofs.unproven(release, name, names, options)
        yield LevelResult(level, findings, read_bytes, seconds, unproven)


def _run(checks: Checks, whole: Check, release: Release, options: Options) -> Iterator[Finding]:
    yield from caught(checks(release, options), whole, release)


def guarded(level: Level, name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield a level's findings; an error that ends it early becomes a finding, too.

    Args:
        level: The level.
        name: What is verified.
        check: Makes the findings.
    """
    try:
        yield from check()
    except (HerdbookError, OSError) as error:
        yield Finding(level.name, "level", name, outcome_of(error), str(error))
    except ModuleNotFoundError as error:
        detail = f"needs {error.name}, which is not installed here: pip install 'herdbook[all]'"
        yield Finding(level.name, "level", name, Outcome.UNVERIFIED, detail)
    except Exception as error:  # noqa: BLE001 - a bug of the verifier is reported as one, not blamed on the release
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.name}, line {last.lineno}"
        detail = (
            f"internal error of the verifier ({type(error).__name__} in {where}); the release may be good or bad. Please report it "
            "with the output of `herdbook --debug verify`."
        )
        yield Finding(level.name, "level", name, Outcome.BROKEN, detail)
