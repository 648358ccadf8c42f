"""What a measurement must contain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.comparison.groups import derive, follows
from herdbook.layout import EVALUATIONS
from herdbook.plan.evaluate import EVALUATE_CODE
from herdbook.release.reader import damaged
from herdbook.verify.gguf.recorded import file_of
from herdbook.verify.results.expected import DEVICE, Expected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan import Evaluation, Plan
    from herdbook.release.reader import Release


def measurement(plan: Plan, release: Release, item: Evaluation) -> Expected:
    """Return what the result of a measurement must contain."""
    name = f"{EVALUATIONS}/{item.id}.json"
    found = release.subject.json(name)
    with damaged(name):
        pinned = plan.lock.requests_of(item.node.name)
        requests = {task: found["tasks"][task]["requests"] for task in item.group.names if task in pinned}
        titles = {task: result["title"] for task, result in found["tasks"].items()}
        documents = {task: result["documents"] for task, result in found["tasks"].items()}
        fields = [sorted(result) for result in found["tasks"].values()]
        scores = [sorted(score) for result in found["tasks"].values() for score in result["metrics"].values()]
        stated, derived = wholes(item, found)
        harness = found["code"].get("lm_eval")
    pinned_harness = plan.lock.harness.lm_eval if plan.lock.harness else harness
    tasks = item.group.tasks
    limits = {task: own.limit for locked, own in tasks for task in locked.titles}
    return Expected(
        name,
        EVALUATE_CODE,
        {**item.about, "weights": _weights(release, item)},
        frozenset({"tasks", "groups", "samples", DEVICE}),
        [
            (derived, stated),
            (pinned_harness, harness),
            ({task: pinned[task] for task in requests}, requests),
            ({task: title for locked, _ in tasks for task, title in locked.titles.items()}, titles),
            (
                {task: min(count, limits.get(task) or count) for task, count in documents.items()},
                documents,
            ),
            ([["documents", "metrics", "requests", "title"]] * len(fields), fields),
            ([["aggregation", "higher_is_better", "stderr", "value"]] * len(scores), scores),
        ],
    )


def wholes(item: Evaluation, found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the stated results of groups as a whole, and what they have to be: as stated if they follow from their tasks."""
    stated = dict(found.get("groups") or {})
    derived = {
        name: derive(locked, name, found["tasks"])
        for locked, _ in item.group.tasks
        for name in locked.groups
        if locked.groups[name].config.get("aggregate_metric_list")
    }
    for name, own in derived.items():
        if name in stated and follows(stated[name], own):
            derived[name] = stated[name]
    return stated, derived


def _weights(release: Release, item: Evaluation) -> dict[str, str]:
    """Return the digests of the files that were measured, as the release has or records them."""
    if item.quantized:
        return {item.quantized.file: str(file_of(release, item.quantized)["sha256"])}
    records = release.records()
    with damaged(f"the records of {item.node.name}"):
        return {
            name: records[part.key]["file"]["sha256"]
            for name, part in zip(item.node.shard_names, item.node.parts, strict=True)
        }
