"""Gathering the facts that a card states from the plan and the build's results."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

from herdbook.architectures.mixtures import expert_of
from herdbook.errors import StepError
from herdbook.layout import image_file
from herdbook.plan.card import CARD_CODE, described, shows_spectrum
from herdbook.plan.edition import Edition
from herdbook.plan.material import ancestry
from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe import Compress, Laser, Mixture, Moe
from herdbook.steps.card import metadata, results
from herdbook.steps.card.asserted import check_claims
from herdbook.steps.card.changes import changes_since
from herdbook.steps.card.choices import choices, fits
from herdbook.steps.card.citations import citations
from herdbook.steps.card.commands import commands
from herdbook.steps.card.compared import comparisons_of, marks_of, titled
from herdbook.steps.card.context import Facts, MoeFacts, is_loadable
from herdbook.steps.card.counts import count_parameters
from herdbook.steps.card.files import check_weights, quantized_of, weights_of
from herdbook.steps.card.lasered import describe_laser, effects
from herdbook.steps.card.losses import losses_of
from herdbook.steps.card.origins import made_models, sources
from herdbook.steps.card.rank import rank_all
from herdbook.steps.card.results import Measurement, read_json, read_measurements, versions_of
from herdbook.steps.card.routed import read_routing
from herdbook.steps.card.standing import standings
from herdbook.steps.card.suites import suite_tables
from herdbook.steps.card.tuned import tuned_models
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from herdbook.comparison.verdict import Comparison
    from herdbook.plan import Node, Plan
    from herdbook.weights.record import TensorEntry

# The actions that make tensors, in the order of the card.
ACTIONS = (
    "fetch",
    "copy",
    "stack",
    "rows",
    "cast",
    "alter",
    "zeros",
    "adapter",
    "merge",
    "laser",
    "router",
    "compress",
)


def gather(plan: Plan, taken: tuple[Comparison, ...] | None = None) -> Facts:
    """Gather the facts of a plan's card.

    Args:
        plan: The plan.
        taken: See ``herdbook.steps.card.step.render_card``.

    Raises:
        LockError: If a leaderboard's snapshot changed since it was locked.
        CheckpointError: If a shard's record is missing or damaged.
        StepError: If another input is missing or damaged, or contradicts the plan.
    """
    nodes = ancestry(plan)
    records = {node.name: _entries(plan, node) for node in described(plan)}
    entries = records[plan.released.name]
    measurements = read_measurements(plan)
    weights = weights_of(plan)
    quantized = {item.file: quantized_of(plan, item.method) for item in plan.quantized}
    digests = {file.name: file.sha256 for file in (*weights, *(one for one, _ in quantized.values()))}
    check_weights(plan, measurements, digests)
    own = next((m for m in measurements if m.node == plan.released.name and m.method is None), None)
    model = plan.released.recipe
    if isinstance(model, Compress):  # which has the parameters of the model that was encoded
        encoded = plan.nodes[model.compress]
        shapes = {name: list(tensor.shape) for name, (_, tensor) in encoded.tensors.items()}
    else:
        shapes = {name: entry["shape"] for name, entry in entries.items()}
    counts = count_parameters(
        shapes.items(),
        model.moe.experts_per_token if isinstance(model, Moe) else 0,
    )
    lasered = tuple(
        describe_laser(
            node,
            records[node.name],
            read_json(plan.layout.search(node.search), f"search of {node.name}") if node.search else None,
        )
        for node in nodes
        if isinstance(node.recipe, Laser)
    )
    comparisons = comparisons_of(plan, measurements, taken)
    files = choices(plan, counts, weights, quantized, measurements)
    # a repository of GGUF files has no others
    offered = [file for file in files if file.method or plan.edition is not Edition.GGUF]
    columns = results.columns(measurements)
    compared, ranks = titled(comparisons, measurements), rank_all(plan, measurements)
    content = plan.recipe_path.read_bytes()
    text = content.decode("utf-8-sig")
    found_sources = tuple(sources(plan, nodes))
    return Facts(
        front_matter=metadata.render(_front_matter(plan, nodes, own)),
        image=image_file(plan.lock.image.name) if plan.lock.image else None,
        recipe=plan.recipe,
        recipe_text=text,
        recipe_sha256=hashlib.sha256(content).hexdigest(),
        herdbook_version=CARD_CODE.describe().packages["herdbook"],
        released=plan.released,
        counts=counts,
        size_bytes=sum(file.size_bytes for file in weights),
        moe=_moe(plan, model.moe, entries) if isinstance(model, Moe) else None,
        routing=read_routing(plan),
        lasered=lasered,
        effects=effects(lasered, measurements, comparisons),
        tuned=tuned_models(plan, nodes),
        measurements=measurements,
        suites=suite_tables(plan, measurements),
        columns=columns,
        comparisons=compared,
        marks=marks_of(plan, comparisons),
        ranks=ranks,
        asserted=check_claims(plan, ranks, compared),
        sources=found_sources,
        licensed=plan.licensed,
        made=made_models(nodes),
        choices=files,
        fits=fits(offered, plan.released.config),
        losses=losses_of(plan),
        commands=commands(plan, files, loadable=is_loadable(plan.released)),
        changes=changes_since(plan, own, digests, text),
        citations=citations(nodes, found_sources),
        standings=standings(plan, measurements, columns, compared, files),
        weights=weights,
        quantized=tuple(quantized[item.file][0] for item in plan.quantized if not item.is_split),
        actions=_actions(nodes, records),
        spectrum=_spectrum(nodes, records),
        versions=_versions(plan, nodes, measurements),
    )


def _front_matter(plan: Plan, nodes: tuple[Node, ...], own: Measurement | None) -> dict[str, Any]:
    if plan.edition.scheme:
        return metadata.build_encoded(plan, nodes, SCHEMES[plan.edition.scheme])
    if plan.edition is Edition.GGUF:
        return metadata.build_quantized(plan, nodes)
    return metadata.build(plan.recipe, nodes, own)


def _entries(plan: Plan, node: Node) -> dict[str, TensorEntry]:
    """Return the entries of a model's tensors in the records of its shards, after checking them against the plan."""
    entries: dict[str, TensorEntry] = {}
    for part in node.parts:
        record = read_record(plan.layout.record(part))
        if record.get("key", part.key) != part.key:
            raise StepError(
                f"card: {plan.layout.record(part)}: belongs to another plan. Delete it and its shard, and rebuild."
            )
        for tensor in part.tensors:
            entry = record["tensors"].get(tensor.name)
            if (
                not isinstance(entry, dict)
                or list(entry.get("shape", ())) != list(tensor.shape)
                or "sha256" not in entry
            ):
                raise StepError(
                    f"card: {plan.layout.record(part)}: does not describe tensor {tensor.name} as planned. "
                    "Delete it and its shard, and rebuild."
                )
            # Tensors that are stacked in one are counted separately.
            slices = {item["name"]: cast("TensorEntry", item) for item in entry.get("slices", ())}
            entries |= slices or {tensor.name: entry}
    return entries


def _moe(plan: Plan, mixture: Mixture, entries: dict[str, TensorEntry]) -> MoeFacts:
    weights: dict[int, dict[str, str]] = {}
    for name, entry in entries.items():
        if location := expert_of(name):
            weights.setdefault(location[0], {})[location[1]] = str(entry["sha256"])
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for expert in sorted(weights):
        groups.setdefault(tuple(sorted(weights[expert].items())), []).append(expert + 1)
    twins = tuple(tuple(group) for group in groups.values() if len(group) > 1)
    return MoeFacts(mixture, plan.nodes[mixture.base].parameters, twins, len(groups))


def _spectrum(
    nodes: tuple[Node, ...], records: dict[str, dict[str, TensorEntry]]
) -> tuple[str, TensorEntry] | None:
    """Return the name and the record's entry of the matrix that LASER changed most, whose spectrum is shown."""
    cut = {
        f"{name} of {node.name}": entry
        for node in nodes
        if shows_spectrum(node)
        for name, entry in records[node.name].items()
        if entry.get("action") == "laser"
    }
    return max(cut.items(), key=lambda item: (item[1]["change"], item[0])) if cut else None


def _actions(
    nodes: tuple[Node, ...], records: dict[str, dict[str, TensorEntry]]
) -> tuple[tuple[str, int], ...]:
    """Return how many tensors each action made, over the released model and its ancestors."""
    counts = dict.fromkeys(ACTIONS, 0)
    for name, part in {part.key: (node.name, part) for node in nodes for part in node.parts}.values():
        for tensor in part.tensors:
            # A search may keep matrices unchanged that the plan allows LASER to reduce.
            recorded = (
                records.get(name, {}).get(tensor.name, {}).get("action") if tensor.action == "laser" else None
            )
            action = recorded or tensor.action
            counts[action] = counts.get(action, 0) + 1
    return tuple((action, number) for action, number in counts.items() if number)


def _versions(
    plan: Plan, nodes: tuple[Node, ...], measurements: tuple[Measurement, ...]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the packages that decided the bytes, each with all versions that were used."""
    by_package: dict[str, set[str]] = {}
    used = [versions_of(part.code.json) for node in nodes for part in node.parts]
    used += [
        versions_of(read_json(plan.layout.quantized_record(item), "record").get("code") or {})
        for item in plan.quantized
    ]
    for versions in (*used, *(measurement.versions for measurement in measurements)):
        for package, version in versions.items():
            by_package.setdefault(package, set()).add(version)
    return tuple(
        (package, tuple(sorted(by_package[package])))
        for package in sorted(by_package, key=lambda name: (name.lower(), name))
    )
