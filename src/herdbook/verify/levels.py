"""The levels of verification, each of which includes those before it, and running them."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from herdbook.errors import HerdbookError
from herdbook.release.finding import Finding, Level, Outcome, outcome_of
from herdbook.verify import claims, files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from herdbook.release.finding import Options
    from herdbook.release.reader import Release

    Checks = Callable[[Release, Options], Iterator[Finding]]


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


# The expensive levels are imported when they are run: a build asks for the first two alone.
LEVELS: dict[str, tuple[Level, Checks]] = {
    level.name: (level, checks)
    for level, checks in (
        (
            Level(
                files.LEVEL,
                "the files are those that the checksums list, and weights are laid out as their records say",
                "a folder: every byte; the Hub: its own digests, headers, small files",
                "a pass over the disk; some MB",
            ),
            files.check,
        ),
        (
            Level(
                claims.LEVEL,
                "claims, keys and lineage follow from the release itself, and from nobody but who signed",
                "claims, records, lineage, signature",
                "seconds",
            ),
            claims.check,
        ),
        (
            Level(
                "upstream",
                "each pinned source is still there, with the digests that were pinned",
                "the Hub's description of each source",
                "a request a source",
            ),
            _upstream,
        ),
        (
            Level(
                "equality",
                "bytes that are said to be copies are those of the sources",
                "the same ranges of release and sources",
                "twice the sample, or twice the release",
            ),
            _equality,
        ),
        (
            Level(
                "recomputed",
                "what was made and not copied comes out again: matrices, routers, GGUF files, and the card from the records",
                "what the sample was made from, upstream; the model that the prompts ran through",
                "minutes; with the sample `all`, hours",
            ),
            _recompute,
        ),
        (
            Level(
                "rebuild",
                "all of it, made again from upstream, is the same bytes",
                "all sources",
                "what building it costs",
            ),
            _rebuild,
        ),
    )
}


@dataclass(frozen=True)
class LevelResult:
    """What running a level gave.

    Args:
        level: The level.
        findings: What it found.
        read_bytes: How much it read, of release and sources.
        seconds: How long it took.
    """

    level: Level
    findings: tuple[Finding, ...]
    read_bytes: int
    seconds: float


def run(release: Release, last: str, options: Options) -> Iterator[LevelResult]:
    """Run all levels up to one. None keeps those after it from running: whatever can be found is found.

    Args:
        release: The release.
        last: The last level's name.
        options: What was asked.
    """
    names = list(LEVELS)
    for name in names[: names.index(last) + 1]:
        level, checks = LEVELS[name]
        started, before = time.monotonic(), release.read_bytes
        findings = tuple(guarded(level, release.name, partial(checks, release, options)))
        yield LevelResult(level, findings, release.read_bytes - before, time.monotonic() - started)


def guarded(level: Level, name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield a level's findings; what ends it early is one, too.

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
    except Exception as error:  # noqa: BLE001 - a fault of the verifier is told as one, not as the release's
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.name}, line {last.lineno}"
        detail = (
            f"the verifier broke ({type(error).__name__} in {where}); this says nothing about the release. Please report it with "
            "what `herdbook --debug verify` prints."
        )
        yield Finding(level.name, "level", name, Outcome.BROKEN, detail)
