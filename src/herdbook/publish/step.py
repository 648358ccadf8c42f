"""Publishing: look, propose, commit once, read back, tag, claim. Run again at any point, it goes on from what is there.

Nothing remembers how far an earlier run came: each attempt looks at the repository anew, and what is there already is
not proposed again. A commit names the head that it was made for. If that has moved, by somebody else or by an own commit
whose answer was lost, looking again tells which of the two it was. What somebody else has put there meanwhile is not
overwritten unseen: then a person has to look.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError, VerificationError
from herdbook.hub import WAITS_S
from herdbook.layout import CLAIMS
from herdbook.publish import claims, preflight
from herdbook.publish.hub import AgainError, Repository
from herdbook.publish.local import LocalFile
from herdbook.publish.proposal import LIMIT_BYTES, describe, differences, overwritten, propose

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.publish.local import LocalRelease
    from herdbook.publish.proposal import Proposal, RemoteState

    Say = Callable[[str], None]
    Sign = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Publication:
    """Where a release is published.

    Args:
        repo: ``owner/name``.
        url: The commit's page.
        commit: The commit that holds the release.
        tag: The tag of that commit.
        purl: The commit as a package URL.
        claim: The line of claims.jsonl that says so.
    """

    repo: str
    url: str
    commit: str
    tag: str | None
    purl: str
    claim: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON, for machines."""
        return {**asdict(self), "claim": json.loads(self.claim)}


def preview(release: LocalRelease, repo: str | None) -> tuple[str, list[str], list[str]]:
    """Return what publishing would do, without doing any of it and without the right to.

    Returns:
        The commit for people; what speaks against it; and what the present token could not do.

    Raises:
        StepError: If the Hub cannot be asked.
    """
    asked = release.recipe.publish
    problems = preflight.of_release(release, public=not asked.private) + preflight.of_name(repo)
    if repo is None or preflight.of_name(repo):
        return "", problems, []
    repository = Repository(repo)
    there = repository.look()
    problems += preflight.of_repository(release, repository, there)
    refused = preflight.of_account(repository)
    absent = ", not there or not to be seen with this token" if refused else ", to be made"
    seen = "private" if asked.private else "public"
    where = f"{repository.url} ({seen}{'' if there.head else absent})"
    return describe(propose(release, there), where, asked.tag), problems, refused


def publish(release: LocalRelease, repo: str | None, sign: Sign, say: Say) -> Publication:
    """Publish a release; if it is published already, nothing happens.

    Args:
        release: The release.
        repo: ``owner/name``.
        sign: Turns a statement into a line of claims.jsonl.
        say: Tells a person what is going on.

    Raises:
        StepError: If something speaks against it (all of it at once), or the Hub does.
        VerificationError: If the Hub holds something else than what was sent.
    """
    asked = release.recipe.publish
    problems = preflight.of_release(release, public=not asked.private) + preflight.of_name(repo)
    if repo is None or preflight.of_name(repo):
        raise StepError("\n".join(problems))
    repository = Repository(repo)
    refused = preflight.of_account(repository)
    there = repository.look()
    problems += refused + preflight.of_repository(release, repository, there)
    if problems:
        raise StepError("\n".join(problems))
    if there.head is None:
        repository.create(private=asked.private)
        there = repository.look()
        problem = preflight.visibility_problem(release, repository)
        if there.head is None:  # without a parent, a commit could be made on top of anything
            problem = f"{repository.url}: was made, but cannot be seen yet. Run again."
        if problem:
            raise StepError(problem)
    commit = _commit(release, repository, there, say)
    if asked.tag:
        _tag(release, repository, asked.tag, commit, say)
    claim = _claim(release, repository, commit, sign, say)
    purl = claims.purl(repo, commit, repository.endpoint)
    return Publication(repo, f"{repository.url}/tree/{commit}", commit, asked.tag, purl, claim)


def _commit(release: LocalRelease, repository: Repository, seen: RemoteState, say: Say) -> str:
    """Make the commit, if it is not made yet, read it back, and return its id.

    Args:
        release: The release.
        repository: Where.
        seen: What was there when pre-flight looked.
        say: Tells a person what is going on.
    """
    there = seen
    for wait_s in (*WAITS_S, None):
        proposal = propose(release, there)
        if proposal.is_empty and there.head:
            commit = _published_as(release, repository, there) or there.head
            say(f"{repository.name}: holds the release already, at {commit}; no commit")
            return commit
        _refuse_unseen(proposal, repository, seen, there)
        say(f"{repository.name}: sending {proposal.upload_bytes:,} bytes, without what is there already")
        try:
            commit = repository.commit(
                proposal.written,
                [file.name for file in proposal.deleted],
                there.head,
                proposal.message,
                proposal.about,
            )
        except AgainError as error:
            _wait(
                error,
                wait_s,
                "Nothing is half published: a commit is there whole or not at all. Run again.",
                say,
            )
            there = repository.look()
            continue
        _read_back(proposal, repository, commit)
        say(f"{repository.name}: {len(proposal.result)} files at {commit}, read back and compared")
        return commit
    raise AssertionError  # the last round returns or raises


def _refuse_unseen(proposal: Proposal, repository: Repository, seen: RemoteState, there: RemoteState) -> None:
    """Raise StepError if a commit would undo what somebody else has done since the first look."""
    lost = overwritten(proposal, seen, there)
    if lost:
        raise StepError(
            f"{repository.name}: somebody else has committed {there.head} while this ran, and publishing would now undo "
            f"what that changed: {', '.join(lost)}. Nothing was committed. See what is there with "
            "`herdbook publish --dry-run`, and run again if this release shall replace it."
        )


def _wait(error: AgainError, wait_s: float | None, given_up: str, say: Say) -> None:
    """Wait before another try, as long as the Hub asks for. Raises StepError if there were enough of them."""
    if wait_s is None:
        raise StepError(f"{error}\nGiven up after {len(WAITS_S) + 1} tries. {given_up}") from error
    wait_s = max(wait_s, error.wait_s)
    say(f"{error}; looking again in {wait_s:g} s")
    time.sleep(wait_s)


def _read_back(proposal: Proposal, repository: Repository, commit: str) -> None:
    """Compare the commit with what it should be, file by file.

    Raises:
        VerificationError: If it is something else; nothing is tagged or claimed then.
    """
    found = differences(proposal.result, repository.files(commit))
    if found:
        raise VerificationError(
            "\n".join(f"{repository.name}@{commit}: {line}" for line in found)
            + "\nThe commit is made, but holds something else than the release, so it was neither tagged nor claimed. Run "
            "again to commit what differs; if it differs again, tell the Hub's people."
        )


def _published_as(release: LocalRelease, repository: Repository, there: RemoteState) -> str | None:
    """Return the commit that the claims say holds this release, if it does."""
    if CLAIMS not in there.files:
        return None
    for purl, _ in claims.publications(there.read(CLAIMS, LIMIT_BYTES), release.digests):
        commit = purl.partition("@")[2][:40]
        if purl == claims.purl(repository.name, commit, repository.endpoint) and _holds(
            release, repository, commit
        ):
            return commit
    return None


def _holds(release: LocalRelease, repository: Repository, commit: str) -> bool:
    try:
        held = repository.files(commit)
    except StepError:
        return False  # squashed away since
    return all(
        file.is_same(held.get(name)) for name, file in release.files.items() if name in release.digests
    )


def _tag(release: LocalRelease, repository: Repository, tag: str, commit: str, say: Say) -> None:
    """Tag the commit. A tag that is there is fine if it holds this release, and is never moved."""
    tags = repository.tags()
    if tag not in tags:
        repository.tag(tag, commit)
        tags = repository.tags()  # somebody else may have been quicker
        say(f"{repository.name}: {tag} is {tags.get(tag)}")
    problem = preflight.tag_problem(release, repository, tag, tags)
    if problem:
        raise StepError(problem)


def _claim(release: LocalRelease, repository: Repository, commit: str, sign: Sign, say: Say) -> str:
    """Append the claim that the release is published, if it is not there yet; return its line."""
    purl = claims.purl(repository.name, commit, repository.endpoint)
    for wait_s in (*WAITS_S, None):
        there = repository.look()
        content = there.read(CLAIMS, LIMIT_BYTES) if CLAIMS in there.files else b""
        said = dict(claims.publications(content, release.digests))
        if purl in said:
            return said[purl]
        line = sign(claims.published(release.digests, purl))
        file = LocalFile.of(CLAIMS, claims.append(content, line))
        try:
            made = repository.commit([file], [], there.head, f"Claim: published as {commit}", "")
        except AgainError as error:
            _wait(error, wait_s, "The release is published, the claim is not. Run again.", say)
            continue
        if not file.is_same(repository.files(made).get(CLAIMS)):
            raise VerificationError(f"{repository.name}@{made}: {CLAIMS} is not what was sent. Run again.")
        say(f"{repository.name}: claimed in {made}")
        return line
    raise AssertionError  # the last round returns or raises
