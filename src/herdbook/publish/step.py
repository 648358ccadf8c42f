"""Publishing: look, propose, commit once, read back, tag, claim. An interrupted run can be repeated and continues.

No state of earlier runs is stored: each attempt reads the repository and proposes only what is missing. A commit names
its parent. If the head has moved, reading the repository shows whether someone else committed, or an own commit exists
whose response was lost. Changes that someone else made in the meantime are not overwritten: the user has to decide.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from herdbook.errors import StepError, VerificationError
from herdbook.hub import WAITS_S
from herdbook.layout import CLAIMS
from herdbook.publish import claims, preflight
from herdbook.publish.hub import Repository, UncertainCommitError
from herdbook.publish.local import LocalFile
from herdbook.publish.proposal import LIMIT_BYTES, describe, differences, overwritten, propose
from herdbook.sources.purl import HubCommit

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.jsonio import JsonObject
    from herdbook.provenance.slsa import Statement
    from herdbook.publish.local import LocalRelease
    from herdbook.publish.proposal import Proposal, RemoteState

    Report = Callable[[str], None]
    Sign = Callable[[Statement], str]


@dataclass(frozen=True)
class Publication:
    """Where a release is published.

    Args:
        repo: ``owner/name``.
        url: The address of the commit's page.
        commit: The commit that contains the release.
        tag: The tag of that commit.
        digest: The release's digest, see ``Release.digest``.
        purl: The commit as a package URL.
        claim: The line of claims.jsonl that states it.
    """

    repo: str
    url: str
    commit: str
    tag: str | None
    digest: str
    purl: str
    claim: str

    def as_json(self) -> JsonObject:
        """Return it as JSON data."""
        return {**asdict(self), "claim": json.loads(self.claim)}


def known_problems(release: LocalRelease, repo: str | None) -> list[str]:
    """Return the problems that are known without the Hub: of the release, its card, and the repository's name."""
    public = not release.recipe.publish.private
    return [
        *preflight.of_release(release, public=public),
        *preflight.of_card(release),
        *preflight.of_name(repo),
    ]


def preview(release: LocalRelease, repo: str) -> tuple[str, list[str], list[str]]:
    """Return what publishing would do, without changing anything; this needs no write access.

    Args:
        release: The release, without known problems.
        repo: ``owner/name``.

    Returns:
        A text about the commit; the problems that prevent it; and what the current token may not do.

    Raises:
        StepError: If the Hub cannot be reached.
    """
    settings = release.recipe.publish
    repository = Repository(repo)
    refused = preflight.of_account(repository)
    remote = repository.look()
    problems = preflight.of_repository(release, repository, remote)
    proposal = propose(release, remote)
    if not proposal.is_empty:
        problems += preflight.of_kept(proposal, remote, repository.name)
    absent = ", does not exist or is hidden from this token" if refused else ", to be created"
    visibility = "private" if settings.private else "public"
    where = f"{repository.url} ({visibility}{'' if remote.head else absent})"
    return describe(proposal, where, settings.tag), problems, refused


def publish(release: LocalRelease, repo: str | None, sign: Sign, report: Report) -> Publication:
    """Publish a release, unless it is published already.

    Args:
        release: The release.
        repo: ``owner/name``.
        sign: Turns a statement into a line of claims.jsonl.
        report: Receives messages about the progress.

    Raises:
        StepError: If problems prevent it, or the Hub refuses. Those that are known without the Hub are reported at once, before it
            is contacted; so are those that it knows, together.
        VerificationError: If the commit on the Hub does not contain what was sent.
    """
    settings = release.recipe.publish
    known = [*known_problems(release, repo), *(preflight.of_token(repo) if repo else [])]
    if repo is None or known:
        raise StepError("\n".join(known))
    repository = Repository(repo)
    refused = preflight.of_account(repository)
    try:
        remote = repository.look()
    except StepError as error:
        raise StepError("\n".join(refused or [str(error)])) from error
    problems = refused + preflight.of_repository(release, repository, remote)
    proposal = propose(release, remote)
    kept = preflight.of_kept(proposal, remote, repository.name)
    if proposal.is_empty:  # others have added it since
        for warning in kept:
            report(f"warning: {warning}")
    else:
        problems += kept
    if problems:
        raise StepError("\n".join(problems))
    if remote.head is None:
        repository.create(private=settings.private)
        remote = repository.look()
        problem = preflight.visibility_problem(release, repository)
        if remote.head is None:  # without a parent, the commit could be added to any head
            problem = f"{repository.url}: was created, but is not visible yet. Run the command again."
        if problem:
            raise StepError(problem)
    commit = _commit(release, repository, remote, report)
    if settings.tag:
        _tag(release, repository, settings.tag, commit, report)
    claim = _claim(release, repository, commit, sign, report)
    purl = str(HubCommit(repo, commit, repository.endpoint))
    return Publication(
        repo, f"{repository.url}/tree/{commit}", commit, settings.tag, release.digest, purl, claim
    )


def _commit(release: LocalRelease, repository: Repository, seen: RemoteState, report: Report) -> str:
    """Commit the release unless that is done, read it back, and return the commit's id.

    Args:
        release: The release.
        repository: The repository.
        seen: Its state at the pre-flight checks.
        report: Receives messages about the progress.
    """
    remote = seen
    for wait_s in (*WAITS_S, None):
        proposal = propose(release, remote)
        if proposal.is_empty and remote.head:
            commit = _published_as(release, repository, remote) or remote.head
            report(f"{repository.name}: already contains the release, at {commit}; no commit")
            return commit
        _refuse_unseen(proposal, repository, seen, remote)
        report(
            f"{repository.name}: sending {proposal.upload_bytes:,} bytes; files that the Hub already has are not sent"
        )
        try:
            commit = repository.commit(
                proposal.written,
                [file.name for file in proposal.deleted],
                remote.head,
                proposal.message,
                proposal.about,
            )
        except UncertainCommitError as error:
            _wait(
                error,
                wait_s,
                "A commit exists completely or not at all, so nothing is half published. Run the command again.",
                report,
            )
            remote = repository.look()
            continue
        _read_back(proposal, repository, commit)
        report(f"{repository.name}: {len(proposal.result)} files at {commit}, read back and compared")
        return commit
    raise AssertionError  # the last attempt returns or raises


def _refuse_unseen(
    proposal: Proposal, repository: Repository, seen: RemoteState, remote: RemoteState
) -> None:
    """Raise StepError if a commit would undo what someone else did after the first look."""
    lost = overwritten(proposal, seen, remote)
    if lost:
        raise StepError(
            f"{repository.name}: someone else committed {remote.head} in the meantime, and publishing would undo its changes of "
            f"{', '.join(lost)}. Nothing was committed. Inspect the repository with `herdbook publish --dry-run`, "
            "and run the command again if this release should replace them."
        )


def _wait(error: UncertainCommitError, wait_s: float | None, given_up: str, report: Report) -> None:
    """Wait before the next attempt, at least as long as the Hub requests. Raises StepError after the last attempt."""
    if wait_s is None:
        raise StepError(f"{error}\nGave up after {len(WAITS_S) + 1} attempts. {given_up}") from error
    wait_s = max(wait_s, error.wait_s)
    report(f"{error}; trying again in {wait_s:g} s")
    time.sleep(wait_s)


def _read_back(proposal: Proposal, repository: Repository, commit: str) -> None:
    """Compare the commit with the expected files, one by one.

    Raises:
        VerificationError: If it differs; it is then neither tagged nor claimed.
    """
    problems = differences(proposal.result, repository.files(commit))
    if problems:
        raise VerificationError(
            "\n".join(f"{repository.name}@{commit}: {line}" for line in problems)
            + "\nThe commit exists, but its content is not the release, so it was neither tagged nor claimed. Run the "
            "command again to commit the difference; if it differs again, report it to Hugging Face."
        )


def _published_as(release: LocalRelease, repository: Repository, remote: RemoteState) -> str | None:
    """Return the commit that the claims name for this release, if it really contains it; else None."""
    if CLAIMS not in remote.files:
        return None
    for purl, _ in claims.publications(remote.read(CLAIMS, LIMIT_BYTES), release.digests):
        commit = purl.partition("@")[2][:40]
        if purl == str(HubCommit(repository.name, commit, repository.endpoint)) and _contains(
            release, repository, commit
        ):
            return commit
    return None


def _contains(release: LocalRelease, repository: Repository, commit: str) -> bool:
    try:
        files = repository.files(commit)
    except StepError:
        return False  # removed by a squash
    return all(
        file.is_same(files.get(name)) for name, file in release.files.items() if name in release.digests
    )


def _tag(release: LocalRelease, repository: Repository, tag: str, commit: str, report: Report) -> None:
    """Tag the commit. An existing tag is accepted if it marks this release, and is never moved."""
    tags = repository.tags()
    if tag not in tags:
        repository.tag(tag, commit)
        tags = repository.tags()  # someone else may have created it first
        report(f"{repository.name}: {tag} is {tags.get(tag)}")
    problem = preflight.tag_problem(release, repository, tag, tags)
    if problem:
        raise StepError(problem)


def _claim(release: LocalRelease, repository: Repository, commit: str, sign: Sign, report: Report) -> str:
    """Append the claim that the release is published, unless it exists; return its line."""
    purl = str(HubCommit(repository.name, commit, repository.endpoint))
    for wait_s in (*WAITS_S, None):
        remote = repository.look()
        content = remote.read(CLAIMS, LIMIT_BYTES) if CLAIMS in remote.files else b""
        lines = dict(claims.publications(content, release.digests))
        if purl in lines:
            return lines[purl]
        line = sign(claims.published(release.digests, purl))
        file = LocalFile.of(CLAIMS, claims.append(content, line))
        try:
            claim_commit = repository.commit([file], [], remote.head, f"Claim: published as {commit}", "")
        except UncertainCommitError as error:
            _wait(
                error, wait_s, "The release is published, but not the claim. Run the command again.", report
            )
            continue
        if not file.is_same(repository.files(claim_commit).get(CLAIMS)):
            raise VerificationError(
                f"{repository.name}@{claim_commit}: {CLAIMS} is not the file that was sent. Run the command again."
            )
        report(f"{repository.name}: claimed in {claim_commit}")
        return line
    raise AssertionError  # the last attempt returns or raises
