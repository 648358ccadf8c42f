"""The entries of results that follow by arithmetic: the rows of routers from the weights, the choice of a search from its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import ROUTING, SEARCHES
from herdbook.release.reader import damaged
from herdbook.verify.rebuild.evidence import differing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from herdbook.plan import Search
    from herdbook.release.finding import Check, Finding
    from herdbook.release.reader import Release
    from herdbook.verify.rebuild.workspace import Workspace


def reports(workspace: Workspace, release: Release, check: Check) -> Iterator[Finding]:
    """Derive what follows by arithmetic in the report on routers and in searches, and compare it."""
    plan = workspace.plan
    if plan.report:
        from herdbook.steps.routing.rows import look, verdict

        workspace.code.require_installed(plan.report.code)
        routers = _routers(release)
        rows = [look(layer, router).describe() for layer, router in routers.items()]
        ours = {"rows": rows, "verdict": verdict(routers)}
        yield from _compared(release, f"{ROUTING}/{plan.report.id}.json", ours, check)
    for search in plan.searches.values():
        if search.guard:
            workspace.code.require_installed(search.code)
            yield from _searched(release, search, check)


def _routers(release: Release) -> dict[int, torch.Tensor]:
    """Return the released routers by layer."""
    from herdbook.steps.routing.rows import ROUTER
    from herdbook.weights.tensors import from_bytes

    routers = {}
    for slice_ in release.lineage():
        if match := ROUTER.match(slice_.tensor):
            data = bytearray(release.subject.read_range(slice_.file, slice_.begin, slice_.end))
            routers[int(match[1])] = from_bytes(data, slice_.dtype, slice_.shape, slice_.tensor)
    return dict(sorted(routers.items()))


def _searched(release: Release, search: Search, check: Check) -> Iterator[Finding]:
    from herdbook.steps.laser.search import difference, judged

    assert search.guard  # noqa: S101 - only such searches have trials
    name = f"{SEARCHES}/{search.id}.json"
    found = release.subject.json(name)
    with damaged(name):
        current, trials, chosen = found["start"], [], {}
        for trial in found["trials"]:
            tensor, rule, losses = trial["tensor"], trial["rule"], trial["losses"]
            recomputed = judged(search.guard, tensor, rule, trial["rank"], found["start"], current, losses)
            trials.append(recomputed)
            if recomputed["kept"]:
                chosen[tensor], current = rule, losses
        ours = {
            "trials": trials,
            "chosen": chosen,
            "end": current,
            "difference": difference(search.guard, found["start"], current),
        }
    yield from _compared(release, name, ours, check)


def _compared(release: Release, name: str, ours: dict[str, Any], check: Check) -> Iterator[Finding]:
    found = release.subject.json(name)
    with damaged(name):
        theirs = {key: found[key] for key in ours}
    differences = [*differing(ours, theirs)]
    for place, expected, actual in differences:
        detail = f"does not follow from {'the released routers' if name.startswith(ROUTING) else 'its trials'}: {place}"
        yield check.failed(name, detail, file=name, expected=expected, found=actual)
    if not differences:
        yield check.passed(name, f"{', '.join(sorted(ours))}: follow by arithmetic", file=name)
