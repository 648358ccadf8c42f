"""Models of the Hub that a recipe names beside its sources: which ones its folders and packages are, and the predecessor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.layout import LOCK, RECIPE
from herdbook.lock.identity import lacks
from herdbook.lock.succession import pin_predecessor
from herdbook.recipe import Hub
from herdbook.release.finding import Check
from herdbook.release.hub_subject import HubSubject
from herdbook.release.reader import caught
from herdbook.sources import purl
from herdbook.verify.differences import difference
from herdbook.verify.history import check_history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import LockedSource
    from herdbook.lock.predecessor import LockedPredecessor
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

IDENTITY = Check("upstream", "identity")
PREDECESSOR = Check("upstream", "predecessor")


def check(release: Release) -> Iterator[Finding]:
    """Check both, as far as the lock has them."""
    for name, locked in release.lock.sources.items():
        if locked.hub_commit:
            yield from caught(_identity(release, name, locked), IDENTITY, release)
    if release.lock.predecessor:
        yield from caught(_predecessor(release, release.lock.predecessor), PREDECESSOR, release)


def _identity(release: Release, name: str, locked: LockedSource) -> Iterator[Finding]:
    """Check that a model in a folder or a package is the one of the Hub that it is named after: that has its weights."""
    named = getattr(release.recipe.models.get(name), "hub_id", None)
    if named is None:
        yield IDENTITY.failed(name, f"the lock has a commit of the Hub, and {RECIPE} no hub_id", file=LOCK)
        return
    uri = str(purl.HubCommit(named.partition("@")[0], locked.hub_commit))
    remote = release.source(uri)
    if not isinstance(remote, HubSubject):
        yield IDENTITY.unverified(name, f"{uri} is not on the Hub", source=uri)
    elif missing := lacks(locked, remote.remote):
        yield IDENTITY.failed(name, f"is not {named}: {missing}", file=LOCK, source=uri)
    else:
        yield IDENTITY.passed(name, f"has the weights of {named}, byte for byte", source=uri)
        yield from check_history(name, Hub(hub=named), remote)


def _predecessor(release: Release, locked: LockedPredecessor) -> Iterator[Finding]:
    """Pin the predecessor a second time, at its locked commit."""
    name, uri = "publish.replaces", str(purl.HubCommit(locked.repo, locked.revision))
    remote = release.source(uri)
    if not isinstance(remote, HubSubject):
        yield PREDECESSOR.unverified(name, f"{uri} is not on the Hub", source=uri)
        return
    pinned = pin_predecessor(locked.asked, remote.remote)
    ours, theirs = (one.model_dump(mode="json") for one in (pinned, locked))
    if ours == theirs:
        yield PREDECESSOR.passed(name, "the lock agrees with the predecessor", source=uri)
        yield from check_history(name, Hub(hub=locked.asked), remote)
        return
    where, expected, found = difference(ours, theirs)
    detail = f"the lock differs from the predecessor: {where}"
    yield PREDECESSOR.failed(name, detail, file=LOCK, source=uri, expected=expected, found=found)
