"""The card step: README.md and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import humanize
from herdbook.architectures.dense import MATRICES
from herdbook.comparison.compare import as_json
from herdbook.figures import (
    Box,
    Cut,
    Edge,
    MeasuredRow,
    Panel,
    draw_heatmap,
    draw_lineage,
    draw_measurements,
    draw_spectrum,
)
from herdbook.files import dump_json, write_text
from herdbook.layout import (
    CARD,
    COMPARISONS,
    LINEAGE_FIGURE,
    MEASUREMENTS_FIGURE,
    NOTICE,
    ROUTING_FIGURE,
    SPECTRUM_FIGURE,
)
from herdbook.plan.comparison import compared
from herdbook.plan.edition import Edition
from herdbook.plan.material import ancestry
from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe import Adapter, Compress, Laser, Merge, Moe
from herdbook.recipe.rank import rank_rule
from herdbook.steps.card import results
from herdbook.steps.card.benchmarks import benchmark_texts
from herdbook.steps.card.gathering import gather
from herdbook.steps.card.notice import license_texts, notice
from herdbook.steps.card.origins import note
from herdbook.steps.card.rendering import own_templates, render_encoded, render_quantized, render_text

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.comparison.verdict import Comparison
    from herdbook.plan import Node, Plan
    from herdbook.steps.card.context import Facts
    from herdbook.steps.card.lasered import Lasered
    from herdbook.steps.card.routed import RoutingFacts
    from herdbook.steps.laser.evidence import SpectrumSummary
    from herdbook.weights.record import TensorEntry


def render_card(plan: Plan, output: Path, taken: tuple[Comparison, ...] | None = None) -> None:
    """Write a card and its figures.

    Args:
        plan: The plan; its models, evaluations and quantized files must exist.
        output: The folder to write to; for its files, see ``herdbook.plan.card.card_files``.
        taken: Comparisons that are taken as recorded, where the samples are not at hand; None to make them.

    Raises:
        LockError: If a leaderboard's snapshot changed since it was locked.
        CheckpointError: If a shard's record is missing or damaged.
        StepError: If another input is missing or damaged, or the Hub would not accept the front matter.
    """
    for name, text in card_texts(plan, taken).items():
        write_text(output / name, text)


def card_texts(plan: Plan, taken: tuple[Comparison, ...] | None = None) -> dict[str, str]:
    """Return the files of a card as text, by name. Raises as ``render_card`` does."""
    facts = gather(plan, taken)
    alone = plan.edition is Edition.GGUF
    if plan.edition.scheme:
        texts = {CARD: render_encoded(facts, plan, SCHEMES[plan.edition.scheme])}
    else:
        texts = {
            CARD: render_quantized(facts, plan) if alone else render_text(facts, own=own_templates(plan))
        }
    texts[NOTICE] = notice(
        plan.recipe.release, facts.licensed, {source.node: source for source in facts.sources}
    )
    texts |= license_texts(facts.licensed)
    if compared(plan):
        texts[COMPARISONS] = dump_json(as_json(item.comparison for item in facts.comparisons))
    if alone or plan.edition.scheme:
        return texts
    texts[LINEAGE_FIGURE] = _lineage(plan, facts)
    if plan.evaluations:
        texts[MEASUREMENTS_FIGURE] = _measurements(facts)
    texts |= benchmark_texts(plan, facts.own)
    for item in facts.lasered:
        texts[item.heatmap] = _heatmap(item)
    if facts.routing and facts.routing.kinds:
        texts[ROUTING_FIGURE] = _routing(facts.routing)
    if facts.spectrum:
        texts[SPECTRUM_FIGURE] = _spectrum(*facts.spectrum)
    return texts


def _lineage(plan: Plan, facts: Facts) -> str:
    nodes = ancestry(plan)
    boxes = [Box(node.name, node.name, note(node), node.operation) for node in nodes]
    edges = [
        Edge(parent, node.name, _role(node, parent))
        for node in nodes
        for parent in dict.fromkeys(node.parents)
    ]
    for choice in facts.choices:
        name = choice.method or "full width"
        boxes.append(Box(f"\0file {name}", name, humanize.size(choice.size_bytes), "file"))
        edges.append(Edge(plan.released.name, f"\0file {name}"))
    return draw_lineage(boxes, edges, f"Lineage of {plan.recipe.release.name}, from its sources to its files")


def _heatmap(item: Lasered) -> str:
    kinds = [matrix for matrix in MATRICES if any(kind == matrix for kind, _ in item.shares)] or list(
        MATRICES
    )
    title = f"{item.name}: share of the rank that LASER kept, in percent; empty: not reduced"
    return draw_heatmap(item.shares, kinds, range(item.layer_count), title, "of the rank kept", "not reduced")


def _routing(routing: RoutingFacts) -> str:
    rows = {
        (kind, place): f"{kind.name}: {place}, {model}"
        for kind in routing.kinds
        for place, model in enumerate(routing.experts, start=1)
    }
    shares = {
        (title, layer): share[place - 1]
        for (kind, place), title in rows.items()
        for layer, share in enumerate(kind.by_layer)
    }
    title = "Share of its choices that each kind of text gives to each expert, in percent"
    return draw_heatmap(shares, list(rows.values()), range(routing.layers), title, "of the choices")


def _spectrum(name: str, entry: TensorEntry) -> str:
    from herdbook.steps.laser.evidence import places
    from herdbook.steps.laser.law import noise_law

    rows, columns = entry["shape"]
    spectrum: SpectrumSummary = entry["spectrum"]
    count = min(rows, columns)
    ranks = [place + 1 for place in places(count)]
    others = {rule: Cut(rule, cut["rank"], cut["value"]) for rule, cut in spectrum["thresholds"].items()}
    used = rank_rule(entry["rule"]).label
    others.pop(used, None)
    cuts = list(others.values())
    if "clusters" not in entry:  # which cut spectra of their own
        cuts.insert(0, Cut(f"{used} (used)", entry["rank"], entry.get("threshold")))
    noise = noise_law(rows, columns).expected(spectrum["noise"], ranks)
    points = list(zip(ranks, spectrum["points"], strict=True))
    return draw_spectrum(points, noise, count, cuts, f"{name} ({rows} x {columns})")


def _role(node: Node, parent: str) -> str:
    """Return the role of a parent in a model, such as ``base`` or ``expert 2``."""
    match node.recipe:
        case Laser():
            return "LASER"
        case Adapter():
            return "adapter"
        case Compress():
            return "encoded"
        case Merge() as model:
            base = getattr(model.merge, "base", None) == parent
            return "base" if base else "merged" if parent in model.merge.inputs else "tokenizer"
        case Moe() as model:
            places = [
                str(place)
                for place, expert in enumerate(model.moe.experts, start=1)
                if expert.model == parent
            ]
            roles = [
                *(["base"] if model.moe.base == parent else []),
                *([f"expert {', '.join(places)}"] if places else []),
            ]
            return ", ".join(roles)
        case _:
            return ""


def _measurements(facts: Facts) -> str:
    panels = []
    for column in facts.columns:
        top = results.best(facts.measurements, column)
        rows = []
        for measured in facts.measurements:
            score = measured.score(column)
            error = "" if score.stderr is None else f" ± {humanize.fixed(score.stderr, score.digits)}"
            released = measured.node == facts.released.name and measured.method is None
            shown = humanize.fixed(score.value, score.digits) + error
            rows.append(
                MeasuredRow(measured.name, score.value, score.stderr, shown, score.value == top, released)
            )
        panels.append(Panel(f"{column.title}: {column.score.name} ({column.score.direction})", tuple(rows)))
    return draw_measurements(panels, f"Measurements of {facts.recipe.release.name} and its relatives")
