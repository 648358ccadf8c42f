"""What a verification found, for people, for machines, for CI, and as a claim that others can read."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from herdbook import __version__
from herdbook.layout import CLAIMS, SUMS
from herdbook.provenance.slsa import STATEMENT_TYPE
from herdbook.release.finding import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.levels import Ran

SUMMARY_TYPE = "https://slsa.dev/verification_summary/v1"
VERIFIER = "urn:herdbook:verifier:v1"
WORDS = {
    Outcome.PASSED: "ok",
    Outcome.FAILED: "FAIL",
    Outcome.IMPOSSIBLE: "????",
    Outcome.BROKEN: "BROKEN",
}
STATUSES = {Outcome.PASSED: 0, Outcome.FAILED: 8, Outcome.IMPOSSIBLE: 9, Outcome.BROKEN: 10}
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def outcome(ran: Sequence[Ran]) -> Outcome:
    """Return how a verification ended: something failed, else the verifier broke, else something could not be checked."""
    found = {finding.outcome for one in ran for finding in one.findings}
    for worst in (Outcome.FAILED, Outcome.BROKEN, Outcome.IMPOSSIBLE):
        if worst in found:
            return worst
    return Outcome.PASSED


def level_text(one: Ran) -> str:
    """Return a level for a terminal: a line a check, then each failure with all that is known of it."""
    lines = [f"{one.level.name}: {one.level.proves}"]
    checks: dict[str, list[Finding]] = {}
    for finding in one.findings:
        checks.setdefault(finding.check, []).append(finding)
    for check, findings in checks.items():
        counts = Counter(finding.outcome for finding in findings)
        worst = next(each for each in (*_by_weight(), Outcome.PASSED) if each in counts)
        told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        passed = [finding for finding in findings if finding.outcome is Outcome.PASSED]
        if len(findings) == 1 == len(passed):
            told = f"{passed[0].subject}: {passed[0].detail}"
        lines.append(f"  {WORDS[worst]:6} {check:10} {told}")
    for finding in one.findings:
        if finding.outcome is not Outcome.PASSED:
            lines += _in_full(finding)
    lines.append(f"  {read_size(one.read_bytes)} read in {one.seconds:.1f} s")
    return "\n".join(plain(line) for line in lines)


def _by_weight() -> tuple[Outcome, ...]:
    return (Outcome.FAILED, Outcome.BROKEN, Outcome.IMPOSSIBLE)


def _in_full(finding: Finding) -> list[str]:
    lines = [f"  {WORDS[finding.outcome]:6} {finding.check}: {finding.subject}: {finding.detail}"]
    for name in ("file", "tensor", "source", "expected", "found"):
        value = getattr(finding, name)
        if value is not None:
            lines.append(f"           {name:9}{value}")
    return lines


def plain(text: str) -> str:
    """Return a text without anything that a terminal would obey."""
    return _CONTROLS.sub("?", text.replace("\n", " "))


def closing(name: str, ran: Sequence[Ran]) -> str:
    """Return the last line: what was verified, how far, and how it ended."""
    counts = Counter(finding.outcome for one in ran for finding in one.findings)
    told = ", ".join(f"{counts[each]} {each}" for each in Outcome if counts[each])
    return plain(f"{name}: level {ran[-1].level.name}: {outcome(ran)} ({told})")


def as_json(name: str, ran: Sequence[Ran], options: Options) -> dict[str, Any]:
    """Return all of it for machines. Times and bytes are told of each level, so this is no reproducible file."""
    return {
        "subject": name,
        "outcome": outcome(ran),
        "level": ran[-1].level.name,
        "seed": options.seed,
        "sample_bytes": options.sample_bytes,
        "levels": [
            {
                **asdict(one.level),
                "read_bytes": one.read_bytes,
                "seconds": round(one.seconds, 3),
                "findings": [asdict(finding) for finding in one.findings],
            }
            for one in ran
        ],
    }


def as_junit(name: str, ran: Sequence[Ran]) -> str:
    """Return it as JUnit's XML: a suite a level, a case a finding."""

    def quoted(text: str) -> str:
        return quoteattr(_CONTROLS.sub("?", text))

    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites name={quoted(name)}>"]
    for one in ran:
        counts = Counter(finding.outcome for finding in one.findings)
        lines.append(
            f'  <testsuite name={quoted(one.level.name)} tests="{len(one.findings)}" failures="{counts[Outcome.FAILED]}" '
            f'errors="{counts[Outcome.BROKEN]}" skipped="{counts[Outcome.IMPOSSIBLE]}" time="{one.seconds:.3f}">'
        )
        for finding in one.findings:
            case = f"    <testcase classname={quoted(f'{finding.level}.{finding.check}')} name={quoted(finding.subject)}"
            tag = {Outcome.FAILED: "failure", Outcome.BROKEN: "error", Outcome.IMPOSSIBLE: "skipped"}.get(
                finding.outcome
            )
            message = " ".join(part.strip() for part in _in_full(finding))
            lines.append(f"{case}><{tag} message={quoted(message)}/></testcase>" if tag else f"{case}/>")
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>", ""])


def as_markdown(name: str, ran: Sequence[Ran]) -> str:
    """Return it as a summary of a job on GitHub. Text of the release is shown as code, so that none of it is obeyed."""
    lines = [
        f"## {_code(name)}: {outcome(ran)}",
        "",
        "| level | it proves | passed | failed | not checked | read | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in ran:
        counts = Counter(finding.outcome for finding in one.findings)
        lines.append(
            f"| {one.level.name} | {one.level.proves} | {counts[Outcome.PASSED]} | {counts[Outcome.FAILED]} | "
            f"{counts[Outcome.IMPOSSIBLE] + counts[Outcome.BROKEN]} | {read_size(one.read_bytes)} | {one.seconds:.1f} |"
        )
    bad = [finding for one in ran for finding in one.findings if finding.outcome is not Outcome.PASSED]
    if bad:
        lines += ["", "| | check | what | file | tensor | source | expected | found |", "| --- " * 8 + "|"]
    for finding in bad:
        cells = [
            finding.outcome,
            f"{finding.level}/{finding.check}",
            *(
                _code(text) if text else ""
                for text in (
                    f"{finding.subject}: {finding.detail}",
                    finding.file,
                    finding.tensor,
                    finding.source,
                    finding.expected,
                    finding.found,
                )
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _code(text: str) -> str:
    return f"`{plain(text).replace('`', chr(39)).replace('|', '¦')}`"


def as_summary(release: Release, ran: Sequence[Ran], options: Options, when: str) -> dict[str, Any]:
    """Return a verification summary: an in-toto statement for ``claims.jsonl``, or for whoever asks CI.

    Format: https://slsa.dev/spec/v1.2/verification_summary

    Args:
        release: What was verified.
        ran: How.
        options: What was asked.
        when: When, as RFC 3339 has it; the format demands it, and it is no part of a release.
    """
    digests = {**release.sums, SUMS: hashlib.sha256(release.subject.read(SUMS)).hexdigest()}
    passed = outcome(ran) is Outcome.PASSED
    inputs = []
    if CLAIMS in release.subject.files:
        content = release.subject.read(CLAIMS)
        inputs.append({"uri": CLAIMS, "digest": {"sha256": hashlib.sha256(content).hexdigest()}})
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digests[name]}} for name in sorted(digests)],
        "predicateType": SUMMARY_TYPE,
        "predicate": {
            "verifier": {"id": VERIFIER, "version": {"herdbook": __version__}},
            "timeVerified": when,
            "resourceUri": release.subject.uri or release.name,
            "policy": {"uri": f"urn:herdbook:verification:{ran[-1].level.name}"},
            "inputAttestations": inputs,
            "verificationResult": "PASSED" if passed else "FAILED",
            # a level is named only if all of it could be checked, and passed
            "verifiedLevels": [
                f"HERDBOOK_{one.level.name.upper()}"
                for one in ran
                if all(finding.outcome is Outcome.PASSED for finding in one.findings)
            ],
            "slsaVersion": "1.2",
            "herdbook_sample": {"seed": options.seed, "bytes": options.sample_bytes},
        },
    }


def read_size(size_bytes: float) -> str:
    """Return a number of bytes as people read it."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.2f} MB"
