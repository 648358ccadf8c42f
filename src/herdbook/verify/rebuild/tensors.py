"""Making single tensors of a plan again: the real steps, on parts that hold nothing but what is wanted."""

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
    RunMergekit,
)
from herdbook.progress import track
from herdbook.weights.checkpoint import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from herdbook.plan import Origin, Part, Plan, Tensor
    from herdbook.verify.rebuild.workspace import Workspace


def ancestors(plan: Plan, wanted: Iterable[Origin]) -> dict[str, dict[str, Tensor]]:
    """Return all that some tensors are made from, and themselves: by key of the part, then by name.

    Args:
        plan: The plan.
        wanted: The tensors.
    """
    tensors = {key: {tensor.name: tensor for tensor in part.tensors} for key, part in plan.parts.items()}
    found: dict[str, dict[str, Tensor]] = {}
    for origin in reachable(wanted, lambda origin: tensors[origin.part][origin.tensor].origins):
        found.setdefault(origin.part, {})[origin.tensor] = tensors[origin.part][origin.tensor]
    return found


def remake(
    workspace: Workspace, records: Mapping[str, Mapping[str, Any]], wanted: Iterable[Origin]
) -> dict[str, HerdbookError]:
    """Make tensors again from upstream, in the workspace's results. What cannot be made keeps nothing else from it.

    Args:
        workspace: The workspace. Shards there hold nothing but what is wanted, and what that is made from.
        records: What the release says of each part, by key.
        wanted: The tensors.

    Returns:
        Why a part could not be made, by key: of wanted parts, and of those they are made from.
    """
    plan = workspace.plan
    found = ancestors(plan, wanted)
    problems: dict[str, HerdbookError] = {}
    parts = [part for key, part in plan.parts.items() if key in found]
    with track("remake", len(parts)) as advance:
        for part in parts:
            tensors = tuple(one for one in part.tensors if one.name in found[part.key])
            parents = {origin.part for one in tensors for origin in one.origins}
            broken = next((problems[key] for key in sorted(parents & problems.keys())), None)
            try:
                if broken:
                    raise broken
                _make(workspace, replace(part, tensors=tensors))
                if part.rule == "fetch":
                    _require_fetched(plan, part, tensors, records[part.key])
            except HerdbookError as error:
                problems[part.key] = error
            advance()
    return problems


def _make(workspace: Workspace, part: Part) -> None:
    """Make a part that holds only some of its tensors. Raises what its step does."""
    from herdbook.steps.machine import Machine
    from herdbook.steps.registry import STEPS

    plan, node = workspace.plan, workspace.plan.nodes[part.model]
    match part.operation:
        case FetchFile() as file:
            workspace.within_reach(node)
            if workspace.is_of_hub(node):
                part = replace(part, operation=FetchRanges(file.digest, file.name))
            else:
                part = plan.parts[part.key]  # a file that is linked as a whole
        case FetchRanges() | FetchGguf() | FoldAdapter():
            workspace.within_reach(node)
        case Reduce() | ReduceAsSearched() if _reads_text(plan, part):
            raise UnverifiedError(
                f"{part.model}: its ranks rest on what a text gives in the whole model; see level rebuild"
            )
        case RunMergekit():
            raise UnverifiedError(f"{part.model}: was merged by mergekit, as a whole; see level rebuild")
    STEPS[part.rule](plan, part, Machine(threads=os.cpu_count() or 1))


def _reads_text(plan: Plan, part: Part) -> bool:
    from herdbook.steps.laser.step import rules_of

    return any(rule.needs_text for rule in rules_of(plan, part).values())


def _require_fetched(plan: Plan, part: Part, tensors: tuple[Tensor, ...], record: Mapping[str, Any]) -> None:
    """Compare what was fetched with what the release says was. Raises VerificationError if it differs."""
    made = read_record(plan.layout.record(part))["tensors"]
    for tensor in tensors:
        said, found = record["tensors"][tensor.name]["sha256"], made[tensor.name]["sha256"]
        if said != found:
            raise VerificationError(
                f"{part.model}: {tensor.name}: upstream has other bytes ({found}) than the release says ({said})"
            )


def slices_of(entry: Mapping[str, Any]) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """Yield what a record says of each slice of a tensor: name (None for a whole tensor) and entry."""
    if "slices" in entry:
        yield from ((piece["name"], piece) for piece in entry["slices"])
    else:
        yield None, entry
