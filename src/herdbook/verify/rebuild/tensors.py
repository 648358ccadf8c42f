"""Recompute single tensors of a plan: run the real steps on parts that contain only the needed tensors."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from herdbook.errors import HerdbookError, UnverifiedError, VerificationError
from herdbook.graph import reachable
from herdbook.plan.operation import (
    FetchFile,
    FetchGguf,
    FetchRanges,
    FoldAdapter,
    Reduce,
    ReduceAsSearched,
)
from herdbook.progress import track
from herdbook.recipe import Hub
from herdbook.release.reader import damaged
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from herdbook.plan import Origin, Part, Plan, Tensor
    from herdbook.verify.rebuild.workspace import Workspace


def ancestors(plan: Plan, targets: Iterable[Origin]) -> dict[str, dict[str, Tensor]]:
    """Return some tensors and all that they are made from, by key of the part, then by name.

    Args:
        plan: The plan.
        targets: The tensors.
    """
    tensors = {key: {tensor.name: tensor for tensor in part.tensors} for key, part in plan.parts.items()}
    needed: dict[str, dict[str, Tensor]] = {}
    for origin in reachable(targets, lambda origin: tensors[origin.part][origin.tensor].origins):
        needed.setdefault(origin.part, {})[origin.tensor] = tensors[origin.part][origin.tensor]
    return needed


def recompute(
    workspace: Workspace, records: Mapping[str, Mapping[str, Any]], targets: Iterable[Origin]
) -> dict[str, HerdbookError]:
    """Recompute tensors from upstream, in the workspace's results. A part that fails does not stop the others.

    Args:
        workspace: The workspace. Its shards contain only these tensors and those that they are made from.
        records: The release's record of each part, by key.
        targets: The tensors.

    Returns:
        The error of each part that could not be made, by key: of these parts, and of those that they are made from.
    """
    plan = workspace.plan
    needed = ancestors(plan, targets)
    problems: dict[str, HerdbookError] = {}
    parts = [part for key, part in plan.parts.items() if key in needed]
    with track("recompute", len(parts)) as advance:
        for part in parts:
            tensors = tuple(tensor for tensor in part.tensors if tensor.name in needed[part.key])
            parents = {origin.part for tensor in tensors for origin in tensor.origins}
            broken = next((problems[key] for key in sorted(parents & problems.keys())), None)
            try:
                if broken:
                    raise broken
                _make(workspace, replace(part, tensors=tensors))
                if part.rule == "fetch":
                    with damaged(f"the record of {part.id}"):
                        recorded = {
                            tensor.name: records[part.key]["tensors"][tensor.name]["sha256"]
                            for tensor in tensors
                        }
                    _require_fetched(plan, part, recorded)
            except HerdbookError as error:
                problems[part.key] = error
            advance()
    return problems


def _make(workspace: Workspace, part: Part) -> None:
    """Make a part that contains only some of its tensors. Raises what its step raises."""
    from herdbook.steps.machine import Machine
    from herdbook.steps.registry import STEPS

    plan = workspace.plan
    workspace.code.require_installed(part.code)
    match part.operation:
        case FetchFile():
            plan, whole = workspace.readable(plan.parts[part.key])
            if isinstance(whole.operation, FetchFile) and _is_on_hub(plan, whole.model):
                part = replace(part, operation=FetchRanges(whole.operation.digest, whole.operation.name))
            else:
                part = whole  # a file that is linked as a whole
        case FetchRanges() | FetchGguf() | FoldAdapter():
            plan, part = workspace.readable(part)
        case Reduce() | ReduceAsSearched() if _reads_text(plan, part):
            raise UnverifiedError(
                f"{part.model}: its ranks depend on running a text through the whole model; see level rebuild"
            )
    STEPS[part.rule](plan, part, Machine(threads=os.cpu_count() or 1))


def _is_on_hub(plan: Plan, source: str) -> bool:
    """Return whether a source is on the Hub in safetensors, so that single tensors of it can be read."""
    return isinstance(plan.nodes[source].recipe, Hub) and plan.lock.sources[source].weights == "safetensors"


def _reads_text(plan: Plan, part: Part) -> bool:
    from herdbook.steps.laser.step import rules_of

    return any(rule.needs_text for rule in rules_of(plan, part).values())


def _require_fetched(plan: Plan, part: Part, recorded: Mapping[str, str]) -> None:
    """Compare fetched tensors with their recorded digests. Raises VerificationError if one differs."""
    fetched = read_record(plan.layout.record(part))["tensors"]
    for tensor, sha256 in recorded.items():
        actual = fetched[tensor]["sha256"]
        if sha256 != actual:
            raise VerificationError(
                f"{part.model}: {tensor}: upstream's bytes (sha256 {actual}) are not those that the release records ({sha256})"
            )


def slices_of(entry: Mapping[str, Any]) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """Yield each slice of a tensor in a record: name (None for a whole tensor) and entry."""
    if "slices" in entry:
        yield from ((piece["name"], piece) for piece in entry["slices"])
    else:
        yield None, entry
