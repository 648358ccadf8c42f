"""What LASER removed, from the records of the lasered shards, and measurements before and after."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import MATRICES, layer_of, matrix_of
from herdbook.errors import StepError
from herdbook.humanize import ranges
from herdbook.layout import heat_map
from herdbook.recipe import Laser

if TYPE_CHECKING:
    from decimal import Decimal

    from herdbook.comparison.verdict import Comparison
    from herdbook.plan import Node
    from herdbook.steps.card.results import Measurement, Score
    from herdbook.weights.record import TensorEntry


@dataclass(frozen=True)
class Lasered:
    """The changes that LASER made to one model.

    Args:
        name: The lasered model.
        parent: The model that it was made from.
        rule: The rank rules, in words.
        matrices: Kind and number of the reduced matrices.
        layers: Their layers, as ranges; the first layer is 0.
        layer_count: Number of layers of the model.
        count: Number of reduced matrices.
        rank_share: Mean share of the singular values that was kept.
        energy: Mean share of the sum of squared singular values that was kept.
        change: Mean relative change of a matrix (Frobenius norm of the difference divided by that of the original).
        largest_change: The largest relative change of a matrix.
        shares: By kind of matrix and layer, the share of the rank that was kept.
        not_noise: Number of matrices whose rule assumes a signal in white noise, where this does not hold.
        search: The result of the search; None if there was none.
    """

    name: str
    parent: str
    rule: str
    matrices: tuple[tuple[str, int], ...]
    layers: str
    layer_count: int
    count: int
    rank_share: float
    energy: float
    change: float
    largest_change: float
    shares: dict[tuple[str, int], float]
    not_noise: int
    search: SearchFacts | None

    @property
    def heatmap(self) -> str:
        """File name of the figure that shows the kept ranks."""
        return heat_map(self.name)


@dataclass(frozen=True)
class SearchFacts:
    """The result of a search.

    Args:
        candidates: Number of candidate matrices.
        by: The ranking that selected among them; None if there was none.
        trials: Number of reductions that were tried; None without a guard.
        kept: Number of reductions that were kept.
        confidence: Confidence of the guard's test.
        margin: The most that all reductions together may cost, in nats per token.
        calibration: Name and split of the text.
        difference: Change of the loss on the guard's windows: mean and upper limit.
        confirmation: The same on windows that no trial used: mean, standard error, upper limit.
    """

    candidates: int
    by: str | None
    trials: int | None
    kept: int
    confidence: float
    margin: float
    calibration: str
    difference: dict[str, float]
    confirmation: dict[str, float]


@dataclass(frozen=True)
class Effect:
    """One task's result before and after LASER, with the verdict of the paired comparison."""

    model: str
    parent: str
    title: str
    before: Score
    after: Score
    verdict: str

    @property
    def difference(self) -> Decimal:
        """After minus before."""
        return self.after.value - self.before.value


def describe_laser(node: Node, entries: dict[str, TensorEntry], search: dict[str, Any] | None) -> Lasered:
    """Summarize the changes that LASER made to a model.

    Args:
        node: The lasered model.
        entries: The entries of its tensors in the records of its shards, by name.
        search: The result of the search that chose its matrices; None if there was none.

    Raises:
        StepError: If a record lacks the numbers of a reduced matrix, or the search is damaged.
    """
    model = node.recipe
    assert isinstance(model, Laser)  # noqa: S101 - the caller passes lasered nodes
    cut = {name: entry for name, entry in sorted(entries.items()) if entry.get("action") == "laser"}
    try:
        shares = [float(entry["rank"]) / float(entry["of"]) for entry in cut.values()]
        energies = [float(entry["energy"]) for entry in cut.values()]
        changes = [float(entry["change"]) for entry in cut.values()]
        kinds = Counter(matrix_of(name) or "" for name in cut)
        return Lasered(
            node.name,
            model.laser,
            rule_words(model),
            tuple((matrix, kinds[matrix]) for matrix in MATRICES if kinds[matrix]),
            ranges(layer for name in cut if (layer := layer_of(name)) is not None),
            int(node.config["num_hidden_layers"]),
            len(cut),
            math.fsum(shares) / len(cut) if cut else 1.0,
            math.fsum(energies) / len(cut) if cut else 1.0,
            math.fsum(changes) / len(cut) if cut else 0.0,
            max(changes, default=0.0),
            {
                (str(matrix_of(name)), layer_of(name) or 0): share
                for name, share in zip(cut, shares, strict=True)
            },
            sum(entry.get("assumption_holds") is False for entry in cut.values()),
            _search_facts(search) if search else None,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise StepError(
            f"card: the records of {node.name} do not describe its reductions ({error!r}). Rebuild its shards."
        ) from error


def _search_facts(search: dict[str, Any]) -> SearchFacts:
    parameters = search["parameters"]
    guard, text = parameters["guard"], parameters["calibration"]
    return SearchFacts(
        len(parameters["matrices"]),
        parameters["select"]["by"] if parameters["select"] else None,
        len(search["trials"]) if guard else None,
        len(search["chosen"]),
        guard["confidence"] if guard else 0.0,
        guard["margin"] if guard else 0.0,
        f"{text['name']} ({text['split']})" if text else "",
        search["difference"] if guard else {},
        search["confirmation"] if guard else {},
    )


def rule_words(model: Laser) -> str:
    """Return a LASER entry's rank rule, or rules, in words."""
    words = " or ".join(rule.words for rule in model.ranks)
    return f"{words}, guarded" if model.guard else words


def effects(
    lasered: tuple[Lasered, ...],
    measurements: tuple[Measurement, ...],
    comparisons: tuple[Comparison, ...],
) -> tuple[Effect, ...]:
    """Return the results before and after LASER of each lasered model that was measured together with its parent."""
    verdicts = {(item.model, item.other, item.task, item.metric): item.verdict for item in comparisons}
    models = {measurement.name: measurement for measurement in measurements if measurement.method is None}
    return tuple(
        Effect(
            item.name,
            item.parent,
            result.title,
            models[item.parent].tasks[task].scores[score.metric],
            score,
            verdicts[item.name, item.parent, task, score.metric],
        )
        for item in lasered
        if item.name in models and item.parent in models
        for task, result in models[item.name].tasks.items()
        for score in result.main
    )
