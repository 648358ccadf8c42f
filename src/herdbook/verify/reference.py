"""The part of the level `files` about the age of a release: is it the one that the user has seen, or a newer one?

An older release is as whole as a newer one, so nothing in it shows its age. What does is its digest, which the user has from
elsewhere, or the history of its repository: the release is that of a tag, or was committed after it and never before.
A release's digest is the SHA-256 of its SHA256SUMS, which has the digests of all other files.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from herdbook.layout import SUMS
from herdbook.release.finding import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.release.finding import Finding, Options
    from herdbook.release.hub_subject import HubSubject
    from herdbook.release.reader import Release

REFERENCE = Check("files", "reference")
MAX_OLDER = 500  # commits before a tag, each of which is read; a release takes two


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Compare the release with the user's references."""
    if options.expect:
        if options.expect == release.digest:
            yield REFERENCE.passed(release.name, "is the release with the digest that is expected")
        else:
            detail = f"is another release than the one that is expected: its {SUMS} has another SHA-256"
            yield REFERENCE.failed(
                release.name, detail, file=SUMS, expected=options.expect, found=release.digest
            )
    if options.not_before:
        yield from _not_before(release, options.not_before)


def _not_before(release: Release, tag: str) -> Iterator[Finding]:
    from herdbook import hub
    from herdbook.release.hub_subject import HubSubject

    subject = release.subject
    if not isinstance(subject, HubSubject):
        detail = "is a folder, which has no tags; give its digest with --expect"
        yield REFERENCE.unverified(release.name, detail)
        return
    tagged = hub.read_refs(subject.repo).own.get(f"refs/tags/{tag}")
    if tagged is None:
        yield REFERENCE.failed(release.name, f"its repository has no tag {tag}, which was given as existing")
        return
    if not hub.leads_to(subject.repo, subject.commit, tagged):
        detail = f"is at a commit before {tag}, or in whose history {tag} is not"
        yield REFERENCE.failed(release.name, detail, expected=tagged, found=subject.commit)
        return
    own = _sums(subject)
    if own != _sums(HubSubject(subject.repo, tagged)):
        older = hub.history(subject.repo, tagged)
        next(older, None)  # the tag's own commit
        for commit in islice(older, MAX_OLDER):
            if own == _sums(HubSubject(subject.repo, commit)):
                detail = f"is an older release than {tag}, committed once more: it was published at {commit}"
                yield REFERENCE.failed(release.name, detail, expected=tagged, found=commit)
                return
        if next(older, None):
            detail = f"more than {MAX_OLDER} commits come before {tag}, of which the oldest were not read"
            yield REFERENCE.unverified(release.name, detail)
            return
    yield REFERENCE.passed(release.name, f"is the release of {tag}, or a newer one ({tagged})")


def _sums(subject: HubSubject) -> tuple[str | None, str | None] | None:
    """Return the digests of a commit's SHA256SUMS as the Hub states them; None if the commit has none."""
    entry = subject.files.get(SUMS)
    return (entry.sha256, entry.git_blob) if entry else None
