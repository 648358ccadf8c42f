"""Whether a commit is part of its repository: anyone can put a commit into a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.release.finding import Check
from herdbook.verify.pins import is_proposal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.recipe import Hub, HubFile
    from herdbook.release.finding import Finding
    from herdbook.release.hub_subject import HubSubject

MERGED = Check("upstream", "history")


def check_history(name: str, model: Hub | HubFile, remote: HubSubject) -> Iterator[Finding]:
    """Check that a branch or a tag leads to the pinned commit, so that the repository's owner made it part of it."""
    commit, source = remote.commit, remote.uri
    refs = hub.read_refs(remote.repo)
    direct = [ref for ref, target in refs.own.items() if target == commit]
    owned = direct or [ref for ref in refs.own if hub.leads_to(remote.repo, ref, commit)]
    if owned:
        yield MERGED.passed(name, f"{owned[0]} of {remote.repo} leads to the commit", source=source)
        return
    proposals = [ref for ref, target in refs.proposals.items() if target == commit] or [
        ref for ref in refs.proposals if hub.leads_to(remote.repo, ref, commit)
    ]
    if proposals and is_proposal(model):
        yield MERGED.passed(
            name, f"is {proposals[0]} of {remote.repo}, as the recipe requests", source=source
        )
    elif proposals:
        detail = (
            f"the commit is only in {proposals[0]} of {remote.repo}, a pull request that anyone could open: its owner has not "
            "merged it, and the recipe does not name the pull request"
        )
        yield MERGED.failed(name, detail, source=source)
    else:
        detail = f"no branch, tag or pull request of {remote.repo} leads to the commit"
        yield MERGED.unverified(name, detail, source=source)
