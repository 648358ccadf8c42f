"""The findings of a verification as text, JSON, JUnit XML and Markdown, and as a claim."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from herdbook import __version__
from herdbook.escape import code
from herdbook.humanize import plural, size
from herdbook.layout import CLAIMS, SIGNATURE
from herdbook.provenance.slsa import STATEMENT_TYPE
from herdbook.release.finding import Outcome
from herdbook.verify.fact import ASSERTED
from herdbook.verify.signature import SIGNED, UNSIGNED
from herdbook.visible import line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.levels import LevelResult

SUMMARY_TYPE = "https://slsa.dev/verification_summary/v1"
VERIFIER = "urn:herdbook:verifier:v1"
LABELS = {
    Outcome.PASSED: "ok",
    Outcome.FAILED: "FAIL",
    Outcome.UNVERIFIED: "unverified",
    Outcome.BROKEN: "BROKEN",
}
_PROVEN_BY = re.compile(r"\(see level (\w+)\)$")
LABEL_WIDTH = max(map(len, LABELS.values()))
STATUSES = {Outcome.PASSED: 0, Outcome.FAILED: 8, Outcome.UNVERIFIED: 9, Outcome.BROKEN: 10}


def outcome(results: Sequence[LevelResult]) -> Outcome:
    """Return the worst outcome of a verification: failed, else broken, else unverified, else passed."""
    outcomes = {finding.outcome for result in results for finding in result.findings}
    for worst in (Outcome.FAILED, Outcome.BROKEN, Outcome.UNVERIFIED):
        if worst in outcomes:
            return worst
    return Outcome.PASSED


def level_text(result: LevelResult, *, every: bool = False) -> str:
    """Return a level for a terminal: one line per check, then the details of each finding that did not pass.

    Who signed is shown, too: only the reader can tell whether it is the right one.

    Args:
        result: The level's result.
        every: Whether to show the findings that passed as well.
    """
    lines = [f"{result.level.name}: {result.level.proves}"]
    checks: dict[str, list[Finding]] = {}
    for finding in result.findings:
        checks.setdefault(finding.check, []).append(finding)
    for check, findings in checks.items():
        counts = Counter(finding.outcome for finding in findings)
        worst = next(each for each in (*_by_weight(), Outcome.PASSED) if each in counts)
        found = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        passed = [finding for finding in findings if finding.outcome is Outcome.PASSED]
        if len(findings) == 1 == len(passed):
            found = f"{passed[0].subject}: {passed[0].detail}"
        lines.append(f"  {LABELS[worst]:{LABEL_WIDTH}} {check:10} {found}")
        if len(passed) > 1 or worst is not Outcome.PASSED:
            shown = passed if every else [each for each in passed if _is_about_signer(each)]
            lines += [f"  {'':{LABEL_WIDTH}}   {each.subject}: {each.detail}" for each in shown]
    for finding in result.findings:
        if finding.outcome is not Outcome.PASSED:
            lines += _details(finding)
    lines.append(f"  {size(result.read_bytes)} read in {result.seconds:.1f} s")
    return "\n".join(line(text) for text in lines)


def _is_about_signer(finding: Finding) -> bool:
    return finding.check == SIGNED.name and finding.subject == SIGNATURE


def signed_by(results: Sequence[LevelResult]) -> str:
    """Return what the verification says of the model's signature; empty if it did not get that far."""
    found = [each for result in results for each in result.findings]
    return next((each.detail for each in found if _is_about_signer(each) or each.check == UNSIGNED.name), "")


def unproven_text(result: LevelResult, *, every: bool = False) -> str:
    """Return what is not proven after a level, for a terminal: one line; empty if all is.

    Args:
        result: The result of the last level.
        every: Whether to list the statements.
    """
    if not result.unproven:
        return ""
    text = _summary(result.unproven)
    lines = (
        [f"{text}:", *(f"  {each}" for each in result.unproven)]
        if every
        else [f"{text}. --verbose lists them"]
    )
    return "\n".join(line(each) for each in lines)


def _summary(statements: Sequence[str]) -> str:
    """Return how many statements are not proven after a level, by what proves them."""
    levels = Counter[str]()
    parts = []
    asserted = 0
    for text in statements:
        if text.endswith(f"({ASSERTED})"):
            asserted += 1
        elif match := _PROVEN_BY.search(text):
            levels[match[1]] += 1
        else:
            parts.append(text)
    left = [f"{count} left to the level {level}" for level, count in levels.items()]
    counts = [f"{asserted} asserted by its builder, which no level proves", *left][not asserted :]
    return (
        f"not proven: {plural(len(statements), 'statement')} of the release: {'; '.join([*counts, *parts])}"
    )


def _by_weight() -> tuple[Outcome, ...]:
    return (Outcome.FAILED, Outcome.BROKEN, Outcome.UNVERIFIED)


def _details(finding: Finding) -> list[str]:
    lines = [
        f"  {LABELS[finding.outcome]:{LABEL_WIDTH}} {finding.check}: {finding.subject}: {finding.detail}"
    ]
    for name in ("file", "tensor", "source", "expected", "found"):
        value = getattr(finding, name)
        if value is not None:
            lines.append(f"  {'':{LABEL_WIDTH}}   {name:9}{value}")
    return lines


def closing(name: str, results: Sequence[LevelResult]) -> str:
    """Return the last line: the subject, the level, the outcome and the number of findings by outcome."""
    counts = Counter(finding.outcome for result in results for finding in result.findings)
    found = ", ".join(f"{counts[each]} {each}" for each in Outcome if counts[each])
    return line(f"{name}: level {results[-1].level.name}: {outcome(results)} ({found})")


def opening(release: Release, options: Options) -> str:
    """Return the first line: the release's digest, and whether an older release would pass in its place."""
    text = f"{release.name}: SHA256SUMS has the SHA-256 {release.digest}"
    if not (options.expect or options.not_before):
        text += "; an older release would pass, too: only --expect or --not-before can exclude it"
    return line(text)


def as_json(
    name: str, results: Sequence[LevelResult], options: Options, release: Release | None = None
) -> dict[str, Any]:
    """Return all findings as plain data. It includes durations and bytes read, so it is not reproducible."""
    return {
        "subject": name,
        **({"digest": release.digest} if release else {}),
        "outcome": outcome(results),
        "level": results[-1].level.name,
        "seed": options.seed,
        "sample_bytes": options.sample_bytes,
        "levels": [
            {
                **asdict(result.level),
                "read_bytes": result.read_bytes,
                "seconds": round(result.seconds, 3),
                "unproven": list(result.unproven),
                "findings": [asdict(finding) for finding in result.findings],
            }
            for result in results
        ],
    }


def as_junit(name: str, results: Sequence[LevelResult]) -> str:
    """Return the findings as JUnit XML: one suite per level, one case per finding. Unverified is ``skipped`` in JUnit."""
    tags = {Outcome.FAILED: "failure", Outcome.BROKEN: "error", Outcome.UNVERIFIED: "skipped"}
    root = Element("testsuites", name=line(name))
    for result in results:
        counts = Counter(finding.outcome for finding in result.findings)
        suite = SubElement(
            root,
            "testsuite",
            name=result.level.name,
            tests=str(len(result.findings)),
            failures=str(counts[Outcome.FAILED]),
            errors=str(counts[Outcome.BROKEN]),
            skipped=str(counts[Outcome.UNVERIFIED]),
            time=f"{result.seconds:.3f}",
        )
        for finding in result.findings:
            case = SubElement(
                suite, "testcase", classname=f"{finding.level}.{finding.check}", name=line(finding.subject)
            )
            if tag := tags.get(finding.outcome):
                message = " ".join(text.strip() for text in _details(finding))
                SubElement(case, tag, message=line(message))
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def as_markdown(name: str, results: Sequence[LevelResult]) -> str:
    """Return a GitHub job summary (Markdown). Text from the release is shown as code, so that none of it is rendered."""
    lines = [
        f"## {code(name)}: {outcome(results)}",
        "",
        "| level | proves | passed | failed | unverified | read | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        counts = Counter(finding.outcome for finding in result.findings)
        lines.append(
            f"| {result.level.name} | {result.level.proves} | {counts[Outcome.PASSED]} | {counts[Outcome.FAILED]} | "
            f"{counts[Outcome.UNVERIFIED] + counts[Outcome.BROKEN]} | {size(result.read_bytes)} | {result.seconds:.1f} |"
        )
    bad = [
        finding for result in results for finding in result.findings if finding.outcome is not Outcome.PASSED
    ]
    if bad:
        lines += ["", "| | check | finding | file | tensor | source | expected | found |", "| --- " * 8 + "|"]
    for finding in bad:
        cells = [
            finding.outcome,
            f"{finding.level}/{finding.check}",
            *(
                code(text) if text else ""
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


def as_summary(
    release: Release, results: Sequence[LevelResult], options: Options, when: str
) -> dict[str, Any]:
    """Return a verification summary: an in-toto statement, for ``claims.jsonl`` or for CI.

    Format: https://slsa.dev/spec/v1.2/verification_summary

    Args:
        release: The release that was verified.
        results: The result of each level.
        options: The options of the verification.
        when: The time in RFC 3339 form; the format requires it, so a summary is not part of a release.
    """
    digests = release.digests
    passed = outcome(results) is Outcome.PASSED
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
            "policy": {"uri": f"urn:herdbook:verification:{results[-1].level.name}"},
            "inputAttestations": inputs,
            "verificationResult": "PASSED" if passed else "FAILED",
            # a level is named only if all its checks passed
            "verifiedLevels": [
                f"HERDBOOK_{result.level.name.upper()}"
                for result in results
                if all(finding.outcome is Outcome.PASSED for finding in result.findings)
            ],
            "slsaVersion": "1.2",
            "herdbook_sample": {"seed": options.seed, "bytes": options.sample_bytes},
        },
    }
