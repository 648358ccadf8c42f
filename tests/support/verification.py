"""Verifying in tests as the command does it."""

from herdbook.errors import HerdbookError
from herdbook.release.finding import Finding, Options, Outcome, outcome_of
from herdbook.release.reader import Release
from herdbook.release.subject import open_subject
from herdbook.verify import report
from herdbook.verify.levels import run


def findings(release, level="claims", **options):
    """Return all findings about a folder, or ``owner/name[@revision]``."""
    return [finding for _, found in by_level(release, level, **options) for finding in found]


def by_level(release, level="claims", **options):
    """Run one level after the other; yield the name and the findings of each."""
    try:
        opened = Release(open_subject(str(release)))
    except (HerdbookError, OSError) as error:
        yield "files", [Finding("files", "release", str(release), outcome_of(error), str(error))]
    else:
        for ran in run(opened, level, Options(**options)):
            yield ran.level.name, ran.findings


def failures(release, level="claims", **options):
    """Return level, check and subject of all that did not pass."""
    return {
        (finding.level, finding.check, finding.subject)
        for finding in findings(release, level, **options)
        if finding.outcome is not Outcome.PASSED
    }


def status(found):
    """Return the exit status that findings lead to."""
    outcomes = {finding.outcome for finding in found}
    for worst in (Outcome.FAILED, Outcome.BROKEN, Outcome.UNVERIFIED):
        if worst in outcomes:
            return report.STATUSES[worst]
    return 0
