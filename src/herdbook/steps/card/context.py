"""The facts that a card states, gathered from the plan and the build's results.

Apart from short phrases, text for people comes from the templates.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.mixtures import BY_MODEL_TYPE, expert_of
from herdbook.errors import StepError
from herdbook.humanize import plural
from herdbook.plan.card import CARD_CODE, described, shows_spectrum
from herdbook.plan.material import ancestry, materials
from herdbook.recipe import Adapter, Expert, Laser, Merge, Mixture, Moe
from herdbook.steps.card import metadata, results
from herdbook.steps.card.asserted import Asserted, check_claims
from herdbook.steps.card.compared import Compared, comparisons_of, marks_of, titled
from herdbook.steps.card.counts import Counts, context_bytes, count_parameters
from herdbook.steps.card.lasered import Effect, Lasered, describe_laser, effects, rule_words
from herdbook.steps.card.rank import Ranked, rank_all
from herdbook.steps.card.results import Column, Measurement, read_json, read_measurements, versions_of
from herdbook.steps.card.routed import RoutingFacts, read_routing
from herdbook.steps.card.suites import SuiteTable, suite_tables
from herdbook.steps.quantize.methods import METHODS
from herdbook.weights.checkpoint import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.comparison.marks import Outcome
    from herdbook.comparison.verdict import Comparison
    from herdbook.escape import Markdown
    from herdbook.plan import Node, Plan
    from herdbook.recipe import Recipe

FULL_WIDTH = "Full width: for transformers and vLLM, for further merging, and for making other quantizations."

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
)


@dataclass(frozen=True)
class MoeFacts:
    """A Mixture of Experts.

    Args:
        mixture: Its entry in the recipe.
        base_parameters: Parameters of the base model.
        twins: Places (from 1) of experts whose weights are equal, bit for bit; in groups of two or more.
        distinct: Number of experts that differ.
    """

    mixture: Mixture
    base_parameters: int
    twins: tuple[tuple[int, ...], ...]
    distinct: int

    @property
    def naive(self) -> int:
        """Parameters of separate models, one for each expert."""
        return self.base_parameters * len(self.mixture.experts)

    @property
    def experts(self) -> tuple[tuple[int, Expert], ...]:
        """The experts with their places, from 1."""
        return tuple(enumerate(self.mixture.experts, start=1))


@dataclass(frozen=True)
class FileFacts:
    """A weights file: its name, size in bytes, and digest."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Choice:
    """A row of the table of files: the full-width weights, or a quantized file.

    Args:
        name: The file to load.
        method: The quantization method; None for the full-width weights.
        bits: Bits per weight, measured: the size of the file's tensors divided by the model's parameters.
        size_bytes: Size on the disk.
        memory_bytes: Memory for the weights and for a context of ``CONTEXT_TOKENS``.
        use: When to use it.
    """

    name: str
    method: str | None
    bits: float
    size_bytes: int
    memory_bytes: int
    use: str


@dataclass(frozen=True)
class Source:
    """A model or an adapter that this build did not make.

    ``files`` are those that contain weights; with ``in_part``, only the MLPs were read from them.
    """

    name: str
    uri: str
    revision: str | None
    license: str | None
    files: tuple[FileFacts, ...]
    in_part: bool = False


@dataclass(frozen=True)
class MadeModel:
    """A model that this build made: its name, its operation, its parents in order, and its key."""

    name: str
    operation: str
    note: str
    parents: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Facts:
    """Everything that a card states."""

    front_matter: Markdown
    recipe: Recipe
    recipe_text: str
    recipe_sha256: str
    herdbook_version: str
    released: Node
    counts: Counts
    size_bytes: int
    moe: MoeFacts | None
    routing: RoutingFacts | None
    lasered: tuple[Lasered, ...]
    effects: tuple[Effect, ...]
    measurements: tuple[Measurement, ...]
    suites: tuple[SuiteTable, ...]
    columns: tuple[Column, ...]
    comparisons: tuple[Compared, ...]
    marks: tuple[Outcome, ...]
    ranks: tuple[Ranked, ...]
    asserted: tuple[Asserted, ...]
    sources: tuple[Source, ...]
    made: tuple[MadeModel, ...]
    choices: tuple[Choice, ...]
    weights: tuple[FileFacts, ...]
    quantized: tuple[FileFacts, ...]
    actions: tuple[tuple[str, int], ...]
    spectrum: tuple[str, dict[str, Any]] | None
    versions: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def own(self) -> Measurement | None:
        """The released model's measurement."""
        return next((m for m in self.measurements if m.node == self.released.name and m.method is None), None)

    @property
    def loadable(self) -> bool:
        """Whether transformers has the released model's class."""
        mixture = BY_MODEL_TYPE.get(self.released.config.get("model_type", ""))
        return mixture is None or mixture.loadable


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
    weights = _weights(plan)
    quantized = {item.file: _quantized(plan, item.method) for item in plan.quantized}
    _check_weights(
        plan,
        measurements,
        {file.name: file.sha256 for file in (*weights, *(q for q, _ in quantized.values()))},
    )
    own = next((m for m in measurements if m.node == plan.released.name and m.method is None), None)
    model = plan.released.recipe
    counts = count_parameters(
        ((name, entry["shape"]) for name, entry in entries.items()),
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
    compared, ranks = titled(comparisons, measurements), rank_all(plan, measurements)
    text = plan.recipe_path.read_bytes()
    return Facts(
        front_matter=metadata.render(metadata.build(plan.recipe.release, nodes, own)),
        recipe=plan.recipe,
        recipe_text=text.decode("utf-8-sig"),
        recipe_sha256=hashlib.sha256(text).hexdigest(),
        herdbook_version=CARD_CODE.describe().packages["herdbook"],
        released=plan.released,
        counts=counts,
        size_bytes=sum(file.size_bytes for file in weights),
        moe=_moe(plan, model.moe, entries) if isinstance(model, Moe) else None,
        routing=read_routing(plan),
        lasered=lasered,
        effects=effects(lasered, measurements, comparisons),
        measurements=measurements,
        suites=suite_tables(plan, measurements),
        columns=results.columns(measurements),
        comparisons=compared,
        marks=marks_of(plan, comparisons),
        ranks=ranks,
        asserted=check_claims(plan, ranks, compared),
        sources=tuple(_sources(plan, nodes)),
        made=tuple(
            MadeModel(node.name, node.operation, note(node), tuple(dict.fromkeys(node.parents)), node.key)
            for node in nodes
            if node.parents
        ),
        choices=tuple(_choices(plan, counts, weights, quantized)),
        weights=weights,
        quantized=tuple(file for file, _ in quantized.values()),
        actions=_actions(nodes, records),
        spectrum=_spectrum(nodes, records),
        versions=_versions(plan, nodes, measurements),
    )


def note(node: Node) -> str:
    """Return how a model was made, in a few words."""
    match node.recipe:
        case Laser() as model:
            return f"LASER, {rule_words(model)}"
        case Adapter():
            return "LoRA adapter folded in"
        case Merge() as model:
            return f"{model.merge.method}, {plural(len(dict.fromkeys(model.merge.inputs)), 'model')}"
        case Moe() as model:
            return f"MoE, {len(model.moe.experts)} experts, {model.moe.experts_per_token} a token"
        case _:
            # the source's repository, folder or package
            return str(next(iter(node.recipe.model_dump().values())))


def _entries(plan: Plan, node: Node) -> dict[str, dict[str, Any]]:
    """Return the entries of a model's tensors in the records of its shards, after checking them against the plan."""
    entries: dict[str, dict[str, Any]] = {}
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
            entries |= {item["name"]: item for item in entry.get("slices", ())} or {tensor.name: entry}
    return entries


def _weights(plan: Plan) -> tuple[FileFacts, ...]:
    files = []
    for name, part in zip(plan.released.shard_names, plan.released.parts, strict=True):
        file = read_record(plan.layout.record(part))["file"]
        files.append(FileFacts(name, int(file["size_bytes"]), str(file["sha256"])))
    return tuple(files)


def _quantized(plan: Plan, method: str) -> tuple[FileFacts, float]:
    item = next(item for item in plan.quantized if item.method == method)
    path = plan.layout.quantized_record(item)
    record = read_json(path, f"record of {item.file}")
    try:
        if record.get("method", method) != method or record.get("key", item.key) != item.key:
            raise StepError(f"card: {path}: belongs to another plan. Delete it and rerun `quantize`.")
        file = FileFacts(item.file, int(record["file"]["size_bytes"]), str(record["file"]["sha256"]))
        return file, float(record["bits_per_weight"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StepError(
            f"card: {path}: the record of {item.file} is damaged ({error!r}). Delete it and rerun `quantize`."
        ) from error


def _check_weights(plan: Plan, measurements: Iterable[Measurement], digests: dict[str, str]) -> None:
    """Check that the weights measured under the release's name are the released ones."""
    for measurement in measurements:
        if measurement.node != plan.released.name:
            continue
        wrong = sorted(name for name, sha256 in measurement.weights.items() if digests.get(name) != sha256)
        if wrong:
            raise StepError(
                f"card: {measurement.name}: the measured weights differ from the released ones ({wrong[0]}). "
                "Delete the measurement and rerun `evaluate`."
            )


def _moe(plan: Plan, mixture: Mixture, entries: dict[str, dict[str, Any]]) -> MoeFacts:
    weights: dict[int, dict[str, str]] = {}
    for name, entry in entries.items():
        if location := expert_of(name):
            weights.setdefault(location[0], {})[location[1]] = str(entry["sha256"])
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for expert in sorted(weights):
        groups.setdefault(tuple(sorted(weights[expert].items())), []).append(expert + 1)
    twins = tuple(tuple(group) for group in groups.values() if len(group) > 1)
    return MoeFacts(mixture, plan.nodes[mixture.base].parameters, twins, len(groups))


def _sources(plan: Plan, nodes: tuple[Node, ...]) -> Iterable[Source]:
    for material in materials(plan, nodes):
        files = tuple(
            FileFacts(file.name, file.size_bytes, file.sha256 or "")
            for file in material.files
            if file.name in material.weights
        )
        yield Source(
            material.name, material.uri, material.revision, material.license, files, material.in_part
        )


def _choices(
    plan: Plan, counts: Counts, weights: tuple[FileFacts, ...], quantized: dict[str, tuple[FileFacts, float]]
) -> Iterable[Choice]:
    context = context_bytes(plan.released.config)
    full = sum(file.size_bytes for file in weights)
    name = weights[0].name if len(weights) == 1 else f"model-*-of-{len(weights):05d}.safetensors"
    yield Choice(name, None, 8 * plan.released.size_bytes / counts.total, full, full + context, FULL_WIDTH)
    for item in plan.quantized:
        file, bits = quantized[item.file]
        yield Choice(
            item.file, item.method, bits, file.size_bytes, file.size_bytes + context, METHODS[item.method].use
        )


def _spectrum(
    nodes: tuple[Node, ...], records: dict[str, dict[str, dict[str, Any]]]
) -> tuple[str, dict[str, Any]] | None:
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
    nodes: tuple[Node, ...], records: dict[str, dict[str, dict[str, Any]]]
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
