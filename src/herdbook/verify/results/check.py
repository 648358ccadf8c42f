"""The part of the level `claims` about results: measurements, searches, the report on routers, and records of GGUF files.

What was measured is the builder's word. The requests, the measured files and the code follow from recipe, lock and records.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from herdbook.comparison.losses import missed
from herdbook.layout import LOSSES
from herdbook.release.finding import Check
from herdbook.release.reader import damaged, unread
from herdbook.release.subject import MissingError
from herdbook.verify.differences import difference
from herdbook.verify.results.gguf import imatrix, quantized
from herdbook.verify.results.loss import loss, reference
from herdbook.verify.results.measurement import measurement
from herdbook.verify.results.routing import routed
from herdbook.verify.results.search import searched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from herdbook.plan import Plan
    from herdbook.plan.code import RecordedCode
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release
    from herdbook.verify.results.expected import Expected

RESULTS = Check("claims", "results")


def check(plan: Plan, release: Release, code: RecordedCode) -> Iterator[Finding]:
    """Compare what follows from the plan in each result."""
    wrong = count = 0
    for derive_one in _expected(plan, release):
        try:
            expected = derive_one()
        except MissingError as error:
            yield unread(RESULTS, error, release)
            continue
        count += 1
        found = release.subject.json(expected.name)
        with damaged(expected.name):
            stated = {name: value for name, value in found.items() if name not in expected.free}
        pairs = [(expected.stated, stated), *expected.within]
        for ours, theirs in pairs:
            if ours == theirs:
                continue
            wrong += 1
            where, wanted, actual = difference(ours, theirs)
            about = {"file": expected.name, "expected": wanted, "found": actual}
            detail = f"does not follow from recipe, lock and records: {where}"
            if code.is_of_another_version and expected.code.describe().changed_modules:
                yield RESULTS.unverified(expected.name, f"{detail}. {code.advice}", **about)
            else:
                yield RESULTS.failed(expected.name, detail, **about)
            break
    with damaged(LOSSES):
        problems = list(missed(plan, release.subject.json))
    for problem in problems:
        yield RESULTS.failed(LOSSES, problem)
    if count and not wrong:
        yield RESULTS.passed(
            f"{count} results", "are of the models, files, settings and code that they should be of"
        )


def _expected(plan: Plan, release: Release) -> Iterator[Callable[[], Expected]]:
    for item in plan.evaluations:
        yield partial(measurement, plan, release, item)
    for search in plan.searches.values():
        yield partial(searched, release, search)
    if plan.report:
        yield partial(routed, plan, release, plan.report)
    if plan.imatrix:
        yield partial(imatrix, release, plan.imatrix)
    for file in plan.quantized:
        yield partial(quantized, release, file)
    if plan.reference:
        yield partial(reference, plan, release, plan.reference)
    for measured in plan.losses:
        yield partial(loss, plan, release, measured)
