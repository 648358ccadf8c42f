"""Audits of many models, one after another: each result is kept at once, so that a second run goes on where the first one ended."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, TypedDict

from herdbook import jsonio, limits
from herdbook.audit.audit import Audit
from herdbook.audit.level import UNPROVEN
from herdbook.errors import VerificationError
from herdbook.escape import code, md
from herdbook.files import write_output, write_text
from herdbook.release.finding import Outcome
from herdbook.verify import report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from herdbook.release.finding import Options
    from herdbook.verify.levels import LevelResult

PAUSE_SECONDS = 2.0  # between two models, so that the Hub has time for others
SHOWN = 3  # sentences of each kind on the page
WORST = (Outcome.FAILED, Outcome.BROKEN, Outcome.UNVERIFIED, Outcome.PASSED)


class Line(TypedDict):
    """A result as it is kept.

    ``name`` is the model in the list, ``subject`` that with the audited commit.
    """

    name: str
    subject: str
    outcome: str
    passed: list[str]
    failed: list[str]
    unproven: list[str]
    read_bytes: int


def audit_all(names_path: Path, page: Path, options: Options, say: Callable[[str], None]) -> Outcome:
    """Audit all models of a list that have no result yet, and write the page.

    Args:
        names_path: The list: a model on each line; empty lines and those that begin with ``#`` count not.
        page: The page; results are kept beside it, in a file of the same name with the suffix ``.jsonl``.
        options: The options of each audit.
        say: Called with a line for each model.

    Returns:
        The worst outcome.

    Raises:
        VerificationError: If the list names no model, or kept results are damaged.
    """
    lines = names_path.read_text(encoding="utf-8").splitlines()
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.startswith("#")))
    if not names:
        raise VerificationError(f"{names_path}: names no model; write owner/name on a line for each")
    kept_path = page.with_suffix(".jsonl")
    kept = _kept(kept_path)
    for number, name in enumerate(names, start=1):
        if name in kept:
            say(f"{number}/{len(names)} {name}: {kept[name]['outcome']} (kept)")
            continue
        if number > 1:
            time.sleep(PAUSE_SECONDS)
        audit = Audit(name, None, (), options)
        kept[name] = _line(name, audit.name, audit.run(lambda _: None))
        with kept_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(kept[name], ensure_ascii=False) + "\n")
        say(f"{number}/{len(names)} {name}: {kept[name]['outcome']}")
        write_output(page, as_page([kept[one] for one in names if one in kept], len(names)))
    results = [kept[name] for name in names]
    write_output(page, as_page(results, len(names)))
    return next(worst for worst in WORST if any(one["outcome"] == worst for one in results))


def _kept(path: Path) -> dict[str, Line]:
    """Return the results of an earlier run; a last line that a kill cut off is left out, and removed from the file."""
    if not path.exists():
        return {}
    whole = path.read_text(encoding="utf-8")
    text, newline, rest = whole.rpartition("\n")
    if rest:
        write_text(path, text + newline)
    kept: dict[str, Line] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            found = jsonio.load_object(line.encode(), limits.DOCUMENT)
        except ValueError as error:
            raise VerificationError(f"{path}: line {number} is damaged: {error}. Remove the line") from error
        if not found.keys() >= Line.__annotations__.keys():
            raise VerificationError(f"{path}: line {number} is not a result of an audit. Remove the line")
        kept[str(found["name"])] = Line(**{key: found[key] for key in Line.__annotations__})  # type: ignore[typeddict-item]
    return kept


def _line(name: str, subject: str, result: LevelResult) -> Line:
    def sentences(*outcomes: Outcome) -> list[str]:
        return [
            f"{one.check}: {one.subject}: {one.detail}"
            for one in result.findings
            if one.outcome in outcomes and one.check != UNPROVEN.name
        ]

    unproven = [one.detail for one in result.findings if one.check == UNPROVEN.name]
    return Line(
        name=name,
        subject=subject,
        outcome=str(report.outcome([result])),
        passed=sentences(Outcome.PASSED),
        failed=sentences(Outcome.FAILED, Outcome.BROKEN),
        unproven=[*sentences(Outcome.UNVERIFIED), *unproven],
        read_bytes=result.read_bytes,
    )


def as_page(results: list[Line], count: int) -> str:
    """Return the page: a table of all results, then each model with what failed and what is unproven."""
    rows = [
        f"| {code(one['subject'])} | {one['outcome']} | {len(one['passed'])} | {len(one['failed'])} | {len(one['unproven'])} |"
        for one in results
    ]
    table = ["| model | outcome | passed | failed | unproven |", "| --- | --- | ---: | ---: | ---: |", *rows]
    parts = [f"# Audits\n\n{len(results)} of {count} models.\n", "\n".join(table) + "\n"]
    for one in results:
        lines = [f"- failed: {md(text)}" for text in _few(one["failed"])]
        lines += [f"- unproven: {md(text)}" for text in _few(one["unproven"])]
        parts.append(f"## {code(one['name'])}\n\n" + "\n".join(lines or ["- everything passed"]) + "\n")
    return "\n".join(parts)


def _few(texts: list[str]) -> list[str]:
    more = len(texts) - SHOWN
    return [*texts[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
