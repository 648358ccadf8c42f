"""Statements of a release that are not proven after a level: what only later levels prove, and what no level does.

No statement of a release about itself may loosen a check. What can follow from the recipe, from upstream's bytes or from
arithmetic is derived by the verifier and compared. Everything else is asserted, and is listed by name in each report.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from herdbook.errors import HerdbookError
from herdbook.layout import LOCK, RECIPE, SIGNATURE
from herdbook.plan.edition import Edition
from herdbook.recipe import of_scheme
from herdbook.verify.fact import ASSERTED
from herdbook.verify.facts import AGE, FACTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.release.finding import Options
    from herdbook.release.reader import Release
    from herdbook.verify.fact import Fact

ELSEWHERE = "another release of the same build"


def unproven(release: Release, level: str, levels: Sequence[str], options: Options) -> tuple[str, ...]:
    """Return the statements of a release that are not proven after a level, each with the level that proves it.

    Args:
        release: The release.
        level: The level.
        levels: The names of all levels, in order.
        options: The options of the verification.
    """
    try:
        facts = facts_of(release)
    except HerdbookError:  # a level has reported it
        return ()
    done = levels[: levels.index(level) + 1]
    open_ = [fact for fact in facts if fact.level not in done]
    if options.expect or options.not_before:
        open_ = [fact for fact in open_ if fact.name != AGE]
    named = (
        f"{fact.name} ({fact.level if fact.level == ASSERTED else f'see level {fact.level}'})"
        for fact in open_
    )
    names = list(dict.fromkeys(named))
    if not (options.key or options.identity):
        signed = SIGNATURE in release.subject.files
        names.append(
            "who signed it (pass --key or --identity)" if signed else "its author (nothing is signed)"
        )
    return tuple(names)


def facts_of(release: Release) -> tuple[Fact, ...]:
    """Return the facts that a release contains. Raises HerdbookError if its recipe cannot be read.

    Recipe and lock are those of the whole build in each of its editions. What they say of another edition, that one proves.
    """
    written = own = release.recipe
    if release.edition is Edition.WEIGHTS:
        own = written.model_copy(update={"quantize": None})
    if release.edition.scheme:
        own = of_scheme(written, release.edition.scheme)
    found = [fact for fact in FACTS if fact.concerns(own)]
    shared = [fact for fact in FACTS if fact.file in {RECIPE, LOCK} and fact.concerns(written)]
    return (
        *found,
        *(replace(fact, origin=ELSEWHERE, level=ASSERTED) for fact in shared if fact not in found),
    )


def table() -> str:
    """Return the table of the documentation."""
    lines = ["| file | field | derived from | level, or asserted |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{fact.file}` | {', '.join(f'`{field}`' for field in fact.fields) or fact.name} | {fact.origin} | {fact.level} |"
        for fact in FACTS
    ]
    return "\n".join(lines)
