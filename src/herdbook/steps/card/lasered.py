"""What LASER cut, from the records of the lasered shards, and what was measured before and after."""

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

    from herdbook.plan import Node
    from herdbook.steps.card.results import Measurement, Score


@dataclass(frozen=True)
class Lasered:
    """What LASER did to one model.

    Args:
        name: The lasered model.
        parent: The model before.
        rule: How ranks were chosen, in words.
        matrices: Name and number of the matrices that were cut.
        layers: Their layers, as runs; the first is 0.
        layer_count: Number of layers of the model.
        count: Number of matrices that were cut.
        rank_share: Mean share of the singular values that was kept.
        energy: Mean share of the sum of squared singular values that was kept.
        change: Mean of each matrix's relative change (Frobenius norm of the difference over that of the original).
        largest_change: The largest of these.
        shares: By kind of matrix and layer, the share of the rank that was kept.
        not_noise: Number of matrices whose rule takes them for a signal in white noise, which they are not.
        search: What a search found, if there was one.
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
    search: Found | None

    @property
    def heatmap(self) -> str:
        """Name of the figure of what was kept."""
        return heat_map(self.name)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        candidates: Number of matrices that could have been chosen.
        by: The ranking that selected among them, or None.
        trials: Number of reductions that were tried, or None without a guard.
        kept: Number that were kept.
        confidence: Of the guard's test.
        margin: What all reductions together may cost, in nats a token.
        calibration: Name and split of the text.
        difference: Change of the loss by the guard's own windows: mean and upper limit.
        confirmation: The same on windows that no trial had seen: mean, standard error, upper limit.
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
    """One task's result before and after LASER."""

    model: str
    parent: str
    title: str
    before: Score
    after: Score

    @property
    def difference(self) -> Decimal:
        """After minus before."""
        return self.after.value - self.before.value

    @property
    def stderr(self) -> Decimal | None:
        """Standard error of the difference, as if the two had been measured on different documents."""
        if self.before.stderr is None or self.after.stderr is None:
            return None
        return (self.before.stderr**2 + self.after.stderr**2).sqrt()

    @property
    def verdict(self) -> str:
        """What it did, in neutral words."""
        if self.difference == 0:
            return "no change"
        word = "better" if self.after.beats(self.before) else "worse"
        if self.stderr is None:
            return word
        return (
            f"{word}, by {'less' if abs(self.difference) < self.stderr else 'more'} than the standard error"
        )


def describe_laser(node: Node, entries: dict[str, dict[str, Any]], search: dict[str, Any] | None) -> Lasered:
    """Sum up what LASER did to a model.

    Args:
        node: The lasered model.
        entries: What the records of its shards say of each tensor, by name.
        search: The result of the search that chose its matrices, if one did.

    Raises:
        StepError: If a record holds a reduced matrix without its numbers, or the search is damaged.
    """
    model = node.recipe
    assert isinstance(model, Laser)  # noqa: S101 - what a lasered node is
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
            _found(search) if search else None,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise StepError(
            f"card: the records of {node.name} do not say what LASER did ({error!r}). Build its shards again."
        ) from error


def _found(search: dict[str, Any]) -> Found:
    parameters = search["parameters"]
    guard, text = parameters["guard"], parameters["calibration"]
    return Found(
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


def effects(lasered: tuple[Lasered, ...], measurements: tuple[Measurement, ...]) -> tuple[Effect, ...]:
    """Return what was measured before and after LASER, for each lasered model that was measured together with its parent."""
    models = {measurement.name: measurement for measurement in measurements if measurement.method is None}
    return tuple(
        Effect(item.name, item.parent, result.title, models[item.parent].tasks[task].main, result.main)
        for item in lasered
        if item.name in models and item.parent in models
        for task, result in models[item.name].tasks.items()
    )
