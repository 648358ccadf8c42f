"""The part of the level `claims` about the lock: it pins what the recipe requests, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook import lock as locks
from herdbook.layout import LOCK
from herdbook.recipe import Adapter, Hub
from herdbook.release.finding import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.recipe import HubFile
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

PINS = Check("claims", "lock")


def check(release: Release) -> Iterator[Finding]:
    """Check that each name of the recipe is pinned to itself; name the proposals that the recipe requests."""
    wrong = False
    for misfit in locks.misfits(release.lock, release.recipe):
        wrong = True
        yield PINS.failed(
            misfit.where,
            f"the lock {misfit.what}",
            file=LOCK,
            expected=misfit.expected,
            found=misfit.found,
        )
    for name, model in release.recipe.models.items():
        source = model.adapter if isinstance(model, Adapter) else model
        if isinstance(source, Hub) and is_proposal(source):
            detail = f"{source.hub} is a pull request, which anyone can open; its repository's owner has not merged it"
            yield PINS.passed(f"models.{name}", detail, file=LOCK)
    for name in sorted({*release.lock.sources, *release.lock.adapters} - release.recipe.models.keys()):
        yield PINS.passed(
            name, "is in the lock, but not in the recipe, so nothing is made from it", file=LOCK
        )
    if not wrong:
        count = len(release.lock.sources) + len(release.lock.adapters)
        yield PINS.passed(f"{count} sources", "are pinned as the recipe requests")


def is_proposal(source: Hub | HubFile) -> bool:
    """Return whether a recipe explicitly names a pull request."""
    return source.hub.partition("@")[2].startswith(hub.PROPOSAL)
