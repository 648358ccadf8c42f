"""The part of the level `claims` about results: measurements, searches, the report on routers, and records of GGUF files.

What was measured is the builder's word. The requests, the measured files and the code follow from recipe, lock and records.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from herdbook.comparison.groups import derive, follows
from herdbook.comparison.losses import missed
from herdbook.layout import EVALUATIONS, IMATRIX, LOSSES, RECORDS, ROUTING, SEARCHES
from herdbook.plan.compress import widths
from herdbook.plan.evaluate import EVALUATE_CODE
from herdbook.plan.laser import SEARCH_CODE
from herdbook.plan.loss import LOSS_CODE
from herdbook.plan.quantize import QUANTIZE_CODE
from herdbook.plan.routing import ROUTING_CODE
from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe import Compress
from herdbook.release.finding import Check
from herdbook.release.reader import damaged, unread
from herdbook.release.subject import MissingError
from herdbook.verify.differences import difference
from herdbook.verify.gguf.recorded import file_of, listed_file, recorded_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from herdbook.plan import Evaluation, FileLoss, Imatrix, Node, Plan, Reference, Search
    from herdbook.plan.code import Code, RecordedCode
    from herdbook.plan.quantize import Quantized
    from herdbook.plan.routing import RoutingReport
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

RESULTS = Check("claims", "results")
SUMMARY = [
    "kl_divergence",
    "perplexity",
    "perplexity_ratio",
    "same_top",
    "tokens",
]  # the fields of a measured loss
DEVICE = "device"  # named by the results of a GPU


@dataclass(frozen=True)
class Expected:
    """What a result must contain.

    Args:
        name: Its file.
        code: The code that wrote it.
        stated: The fields that follow from the plan, and their values.
        free: The fields that the step wrote besides, which this level does not derive.
        within: What else follows: pairs of what the result contains and what it should.
    """

    name: str
    code: Code
    stated: dict[str, Any]
    free: frozenset[str]
    within: list[tuple[Any, Any]] = field(default_factory=list)


def check(plan: Plan, release: Release, code: RecordedCode) -> Iterator[Finding]:
    """Compare what follows from the plan in each result."""
    wrong = count = 0
    for derive_one in _expected(plan, release):
        try:
            expected = derive_one()
        except MissingError as error:
            yield unread(RESULTS, error, release)
            continue
        count += 1
        found = release.subject.json(expected.name)
        with damaged(expected.name):
            stated = {name: value for name, value in found.items() if name not in expected.free}
        pairs = [(expected.stated, stated), *expected.within]
        for ours, theirs in pairs:
            if ours == theirs:
                continue
            wrong += 1
            where, wanted, actual = difference(ours, theirs)
            about = {"file": expected.name, "expected": wanted, "found": actual}
            detail = f"does not follow from recipe, lock and records: {where}"
            if code.is_of_another_version and expected.code.describe().changed_modules:
                yield RESULTS.unverified(expected.name, f"{detail}. {code.advice}", **about)
            else:
                yield RESULTS.failed(expected.name, detail, **about)
            break
    with damaged(LOSSES):
        problems = list(missed(plan, release.subject.json))
    for problem in problems:
        yield RESULTS.failed(LOSSES, problem)
    if count and not wrong:
        yield RESULTS.passed(
            f"{count} results", "are of the models, files, settings and code that they should be of"
        )


def _expected(plan: Plan, release: Release) -> Iterator[Callable[[], Expected]]:
    for item in plan.evaluations:
        yield partial(_measurement, plan, release, item)
    for search in plan.searches.values():
        yield partial(_search, release, search)
    if plan.report:
        yield partial(_report, plan, release, plan.report)
    if plan.imatrix:
        yield partial(_imatrix, release, plan.imatrix)
    for quantized in plan.quantized:
        yield partial(_quantized, release, quantized)
    if plan.reference:
        yield partial(_reference, plan, release, plan.reference)
    for loss in plan.losses:
        yield partial(_loss, plan, release, loss)


def _measurement(plan: Plan, release: Release, item: Evaluation) -> Expected:
    name = f"{EVALUATIONS}/{item.id}.json"
    found = release.subject.json(name)
    with damaged(name):
        pinned = plan.lock.requests_of(item.node.name)
        requests = {task: found["tasks"][task]["requests"] for task in item.group.names if task in pinned}
        titles = {task: result["title"] for task, result in found["tasks"].items()}
        documents = {task: result["documents"] for task, result in found["tasks"].items()}
        fields = [sorted(result) for result in found["tasks"].values()]
        scores = [sorted(score) for result in found["tasks"].values() for score in result["metrics"].values()]
        wholes, derived = _wholes(item, found)
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
            (derived, wholes),
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


def _wholes(item: Evaluation, found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
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


def _search(release: Release, search: Search) -> Expected:
    name = f"{SEARCHES}/{search.id}.json"
    found = release.subject.json(name)
    spread = [rule for rule in search.ranks if rule.spreads is not None]
    free = {"chosen", DEVICE}
    if spread:
        free |= {"budgets"}
    if search.select:
        free |= {"ranking"}
    if search.guard:
        free |= {"trials", "start", "end", "difference", "confirmation"}
    with damaged(name):
        ranked = [entry["tensor"] for entry in found["ranking"]] if search.select else list(search.matrices)
        tried = ranked[: search.select.count] if search.select else ranked
        stated = [
            *found["chosen"].items(),
            *((trial["tensor"], trial["rule"]) for trial in found.get("trials", [])),
        ]
        ranks = [entry["ranks"] for entry in found["budgets"]] if spread else []
        possible = [
            (matrix, rule)
            for matrix, rule in stated
            if matrix in tried and rule in _rules(search, matrix, ranks)
        ]
    within = [(sorted(search.matrices), sorted(ranked)), (possible, stated)]
    return Expected(name, SEARCH_CODE, dict(search.about), frozenset(free), within)


def _rules(search: Search, matrix: str, spread: Sequence[Mapping[str, int]]) -> list[Any]:
    """Return the rules of a matrix; of budgets, with the ranks that each was spread into."""
    given = iter(spread)
    return [
        (rule if rule.spreads is None else rule.at(next(given)[matrix])).canonical for rule in search.ranks
    ]


def _report(plan: Plan, release: Release, report: RoutingReport) -> Expected:
    name = f"{ROUTING}/{report.id}.json"
    found = release.subject.json(name)
    with damaged(name):
        texts = {
            text: {key: value for key, value in entry.items() if key != "loss"}
            for text, entry in found["texts"].items()
        }
        layers = [sorted(layer) for layer in found["layers"]]
        prompts = sorted(found["prompts"])
    planned = {text: plan.recipe.calibration[text] for text in report.texts}
    experts = range(1, len(report.experts) + 1)
    return Expected(
        name,
        ROUTING_CODE,
        report.about,
        frozenset({"texts", "layers", "prompts", "rows", "verdict", DEVICE}),
        [
            (
                {
                    text: {"windows": one.windows, "tokens": one.windows * one.tokens}
                    for text, one in planned.items()
                },
                texts,
            ),
            (
                [sorted(report.texts)] * plan.released.config["num_hidden_layers"] if planned else layers,
                layers,
            ),
            (sorted(f"prompts of expert {place}" for place in experts) if prompts else prompts, prompts),
        ],
    )


def _reference(plan: Plan, release: Release, item: Reference) -> Expected:
    name = f"{LOSSES}/{item.id}.json"
    found = release.subject.json(name)
    with damaged(name):
        control = [sorted(found["control"])] if "control" in found else []
        tokens = [found["control"]["tokens"]] if control else []
    texts = {
        text: {"windows": windows, "tokens": windows * tokens} for text, windows, tokens in _sizes(plan, item)
    }
    predicted = sum(windows * (tokens - 1) for _, windows, tokens in _sizes(plan, item))
    return Expected(
        name,
        LOSS_CODE,
        {**item.about, "texts": texts},
        frozenset({"control"}),
        [
            ([SUMMARY] if item.has_control else [], control),
            ([predicted] if item.has_control else [], tokens),
        ],
    )


def _loss(plan: Plan, release: Release, item: FileLoss) -> Expected:
    name = f"{LOSSES}/{item.id}.json"
    found = release.subject.json(name)
    stated, free = dict(item.about), {"total", "texts"}
    if item.quantized:
        stated["file"] = file_of(release, item.quantized)
        stated |= _widths(recorded_types(release, item.quantized))
    elif item.encoded and isinstance(item.encoded.recipe, Compress):
        stated["file"] = _weights_of(release, item.encoded)
        stated |= widths(item.encoded, SCHEMES[item.encoded.recipe.scheme])
    elif item.locked:
        pinned = item.locked.file
        stated["file"] = {"sha256": pinned.sha256, "size_bytes": pinned.size_bytes}
        free |= {"bits_per_weight", "types"}
    sizes = _sizes(plan, item.reference)
    counts = {text: windows * (tokens - 1) for text, windows, tokens in sizes}
    with damaged(name):
        texts = {text: entry["tokens"] for text, entry in found["texts"].items()}
        total = found["total"]["tokens"]
        fields = [sorted(found["total"]), *(sorted(entry) for entry in found["texts"].values())]
    return Expected(
        name,
        LOSS_CODE,
        stated,
        frozenset(free),
        [
            (counts, texts),
            (sum(counts.values()), total),
            ([SUMMARY] * (1 + len(counts)), fields),
        ],
    )


def _weights_of(release: Release, node: Node) -> dict[str, Any]:
    """Return the size of a released model's files, and their digests."""
    sizes = [release.subject.entry(name).size_bytes for name in node.shard_names if name in release.sums]
    return {
        "size_bytes": sum(sizes),
        "weights": {name: release.sums.get(name) for name in node.shard_names},
    }


def _sizes(plan: Plan, item: Reference) -> list[tuple[str, int, int]]:
    """Return the texts of losses: the name of each, how many windows are read, and the tokens of a window."""
    texts = [(name, plan.recipe.calibration[name]) for name in item.texts]
    return [(name, text.windows, text.tokens) for name, text in texts]


def _widths(item: Quantized) -> dict[str, Any]:
    """Return the bits per weight of a quantized file, and how many weights have which type."""
    types: Counter[str] = Counter()
    for tensor in item.tensors:
        types[tensor.type] += math.prod(tensor.shape)
    return {
        "bits_per_weight": round(8 * item.size_bytes / types.total(), 3),
        "types": dict(sorted(types.items())),
    }


def _imatrix(release: Release, item: Imatrix) -> Expected:
    name = f"{RECORDS}/{item.id}{IMATRIX}.json"
    found = release.subject.json(name)
    stated = {
        **item.about,
        "file": listed_file(release, item.file),
        "tensors": sorted(item.tensors),
    }
    if not item.given:
        stated["chunks"] = item.chunks
    with damaged(name):
        free = frozenset(found.keys() - stated.keys())
    return Expected(name, item.code.of, stated, free)


def _quantized(release: Release, planned: Quantized) -> Expected:
    item = recorded_types(release, planned)
    name = f"{RECORDS}/{item.id}.gguf.json"
    found = release.subject.json(name)
    stated = {**item.about, "file": file_of(release, item)}
    widths = _widths(item)
    stated |= {"parameters": sum(widths["types"].values()), **widths}
    with damaged(name):
        free = frozenset(found.keys() - stated.keys())
        listed = [[entry["name"], entry["type"]] for entry in found["tensors"]]
    expected = [[tensor.name, tensor.type] for tensor in item.tensors]
    return Expected(name, QUANTIZE_CODE, stated, free, [(expected, listed)])
