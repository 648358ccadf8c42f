"""The search step: choosing a model's matrices and their ranks by ranking, by a budget and by trials.

The search is greedy, from the last layer to the first: each candidate is tried with each rule in the recipe's order, until
the guard keeps one. No layer below the current one has changed yet, so the hidden states that enter it are unchanged and
are kept on disk; a trial reruns only that layer and those above it. Every trial is recorded as soon as it is done, and an
interrupted search resumes after the last one.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import MATRICES, layer_of, matrix_of
from herdbook.files import write_json
from herdbook.inference.forward import LayerwiseModel
from herdbook.inference.text import calibration_id, windows
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.progress import say, track
from herdbook.steps.laser.budget import spread
from herdbook.steps.laser.gradient import gradients, predicted_change
from herdbook.steps.laser.guard import accepts, paired
from herdbook.steps.laser.journal import Trials
from herdbook.steps.laser.rank import laser_rmt_snr, signal_to_noise
from herdbook.steps.laser.reduce import Cut
from herdbook.steps.laser.states import States
from herdbook.steps.laser.store import DecompositionStore
from herdbook.steps.laser.whiten import whiten_layer
from herdbook.weights.tensors import sha256_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from herdbook.plan import Plan, Search
    from herdbook.recipe import Guard, RankRule
    from herdbook.recipe.spectral import CanonicalRule
    from herdbook.steps.laser.decompose import Decomposition
    from herdbook.steps.laser.guard import PairedDifference
    from herdbook.steps.laser.result import Budget, Compared, Difference, Outcome, Ranked, Trial

DIGITS = 9  # significant digits of a loss: enough to distinguish any two float32 numbers


def search(plan: Plan, planned: Search, threads: int = 1, device: str = "cpu") -> None:
    """Choose a lasered model's matrices and ranks, and write the choice with the ranking and the trials behind it.

    Args:
        plan: The plan; the parent's folder must exist.
        planned: The search.
        threads: How many windows or matrices are processed at the same time; it does not affect the result.
        device: Where to compute.

    Raises:
        LockError: If the calibration text changed since it was locked.
        StepError: If the calibration text is too short.
    """
    with one_thread_a_matrix():
        _SearchRun(plan, planned, threads, device).run()


class _SearchRun:
    """One run of a search."""

    def __init__(self, plan: Plan, planned: Search, threads: int, device: str) -> None:
        self._plan, self._planned = plan, planned
        folder = plan.layout.folder(plan.nodes[planned.parent])
        self._model = LayerwiseModel(folder, device, threads)
        self._store = DecompositionStore(plan.layout.decompositions, device)
        self._text = planned.text
        self._guard = planned.guard
        self._calibration = ""
        self._windows: list[list[int]] = []
        self._confirming: list[list[int]] = []
        if self._text:
            self._calibration = calibration_id(self._text, plan.nodes[planned.parent].key)
            count = self._text.windows
            drawn = windows(
                plan, self._text.name, folder, self._model.config, 2 * count if self._guard else count
            )
            self._windows, self._confirming = drawn[:count], drawn[count:]

    def run(self) -> None:
        """Rank, spread, try, confirm, and write the result."""
        select = self._planned.select
        names = list(self._planned.matrices)
        result: dict[str, Any] = {
            **self._planned.about,
            **({} if self._store.device == "cpu" else {"device": self._store.device.partition(":")[0]}),
        }
        scratch = self._plan.layout.scratch(self._planned)
        states = States(scratch, self._model, self._windows) if self._windows else None
        try:
            if select:
                result["ranking"] = self._ranking(select.by, names, states)
                names = [entry["tensor"] for entry in result["ranking"][: select.count]]
            rules, budgets = self._rules(names, states)
            if budgets:
                result["budgets"] = budgets
            if self._guard:
                assert states is not None  # noqa: S101 - a guard reads text
                result |= self._greedy(rules, states)
            else:
                result["chosen"] = {name: rules[name][0].canonical for name in sorted(names)}
        finally:
            if states:
                states.remove()
        write_json(self._plan.layout.search(self._planned), result)
        self._plan.layout.journal(self._planned).unlink(missing_ok=True)

    # -- ranking ---------------------------------------------------------------------------------------------------

    def _ranking(self, by: str, names: Sequence[str], states: States | None) -> list[Ranked]:
        """Return all candidates with their scores; the most promising one comes first."""
        scores: dict[str, float] = {}
        with track(f"ranking {self._planned.model}", len(names)) as advance:
            if by == "gradient":
                assert states is not None  # noqa: S101 - a gradient reads text
                rules, _ = self._rules(names, states)
                for name, gradient in gradients(self._model, states, self._windows, names):
                    matrix, sha256 = self._matrix(name)
                    decomposition = self._store.decomposition(matrix, sha256)
                    scores[name] = predicted_change(matrix, decomposition, rules[name][0], gradient)
                    advance()
            else:
                ranking = signal_to_noise if by == "snr" else laser_rmt_snr

                def score(name: str) -> float:
                    matrix, sha256 = self._matrix(name)
                    value = ranking(self._store.values(matrix, sha256), *matrix.shape)
                    advance()
                    return value

                scores = dict(zip(names, self._model.each(score, names), strict=True))
        ordered = sorted(scores, key=lambda name: (scores[name], name))
        return [{"tensor": name, "score": _rounded(min(scores[name], 1e300))} for name in ordered]

    # -- spreading -------------------------------------------------------------------------------------------------

    def _rules(
        self, names: Sequence[str], states: States | None
    ) -> tuple[dict[str, list[RankRule]], list[Budget]]:
        """Return each matrix's rules in the recipe's order, with ranks instead of budgets; and how budgets were spread."""
        rules: dict[str, list[RankRule]] = {name: [] for name in names}
        budgets: list[Budget] = []
        for rule in self._planned.ranks:
            if rule.spreads is None:
                for of_matrix in rules.values():
                    of_matrix.append(rule)
                continue
            found = spread(self._spectra(rule, names, states), rule.spreads)
            for name, of_matrix in rules.items():
                of_matrix.append(rule.at(found.ranks[name]))
            budgets.append(
                {"rule": rule.canonical, "ranks": dict(sorted(found.ranks.items())), "level": found.level}
            )
        return rules, budgets

    def _spectra(self, rule: RankRule, names: Sequence[str], states: States | None) -> dict[str, np.ndarray]:
        """Return the singular values of matrices, or of their outputs, as the rule needs."""
        if rule.needs_text:
            assert states is not None  # noqa: S101 - the rule reads text
            for layer, group in _from_the_top(names):
                self._whiten(layer, group, states)
        with track(f"spectra {self._planned.model}", len(names)) as advance:

            def values(name: str) -> np.ndarray:
                matrix, sha256 = self._matrix(name)
                found = self._store.values(matrix, sha256, self._calibration if rule.needs_text else "")
                advance()
                return found

            return dict(zip(names, self._model.each(values, names), strict=True))

    # -- trying ----------------------------------------------------------------------------------------------------

    def _greedy(self, rules: Mapping[str, Sequence[RankRule]], states: States) -> Outcome:
        assert self._guard is not None  # noqa: S101 - trials need a guard
        start = self._losses(self._model.layers, states, {})
        current = start
        accepted: dict[str, torch.Tensor] = {}
        chosen: dict[str, CanonicalRule] = {}
        journal = Trials(self._plan.layout.journal(self._planned), self._planned.key, start)
        if journal.entries:
            say(f"search {self._planned.model}: resuming after {len(journal.entries)} trials")
        with journal, track(f"search {self._planned.model}", len(rules)) as advance:
            for layer, group in _from_the_top(list(rules)):
                self._whiten(layer, group, states)
                for name in group:
                    matrix, sha256 = self._matrix(name)
                    for rule in rules[name]:
                        decomposition = self._decomposition(matrix, sha256, rule)
                        cut = Cut(matrix, decomposition, rule, self._store.device)
                        if cut.rank >= cut.of:
                            continue
                        trial = journal.known(name, rule.canonical)
                        if trial is None:
                            losses = self._losses(layer, states, {**accepted, name: cut.make()})
                            trial = judged(
                                self._guard, name, rule.canonical, cut.rank, start, current, losses
                            )
                            journal.add(trial)
                        if trial["kept"]:
                            accepted[name] = cut.make()
                            chosen[name] = rule.canonical
                            current = trial["losses"]
                            break
                    advance()
        return {
            "chosen": dict(sorted(chosen.items())),
            "trials": journal.entries,
            "start": start,
            "end": current,
            "difference": difference(self._guard, start, current),
            "confirmation": self._confirm(accepted),
        }

    def _confirm(self, accepted: Mapping[str, torch.Tensor]) -> Compared:
        """Compare start and end on windows that no trial used."""
        assert self._guard is not None  # noqa: S101 - nothing is confirmed without a guard
        before = self._pass(self._confirming, {})
        return difference(self._guard, before, self._pass(self._confirming, accepted))

    def _pass(self, sequences: Sequence[Sequence[int]], replaced: Mapping[str, torch.Tensor]) -> list[float]:
        return self._up(0, self._model.embed(sequences), sequences, replaced)

    def _losses(self, layer: int, states: States, replaced: Mapping[str, torch.Tensor]) -> list[float]:
        return self._up(layer, states.entering(layer), self._windows, replaced)

    def _up(
        self,
        layer: int,
        streams: list[torch.Tensor],
        sequences: Sequence[Sequence[int]],
        replaced: Mapping[str, torch.Tensor],
    ) -> list[float]:
        """Return each window's loss, given the hidden states that enter a layer."""
        for number in range(layer, self._model.layers):
            with self._model.layer(number, replaced) as module:
                streams = self._model.run(module, streams)
        return [_rounded(loss) for loss in self._model.losses(streams, sequences)]

    # -- matrices --------------------------------------------------------------------------------------------------

    def _matrix(self, name: str) -> tuple[torch.Tensor, str]:
        matrix = self._model.weights.stored(name)
        return matrix, sha256_tensor(matrix)

    def _decomposition(self, matrix: torch.Tensor, sha256: str, rule: RankRule) -> Decomposition:
        return self._store.decomposition(matrix, sha256, self._calibration if rule.needs_text else "")

    def _whiten(self, layer: int, names: Sequence[str], states: States) -> None:
        """Make a layer's whitened decompositions, if a rule needs them, from the original model's hidden states."""
        if not self._planned.needs_text:
            return
        with self._model.layer(layer) as module:
            matrices = {str(matrix_of(name)): self._matrix(name) for name in names}
            streams = states.entering(layer)
            whiten_layer(self._model, module, streams, matrices, self._store, self._calibration)


def judged(
    guard: Guard,
    name: str,
    rule: CanonicalRule,
    rank: int,
    start: Sequence[float],
    current: Sequence[float],
    losses: Sequence[float],
) -> Trial:
    """Return a trial: what was reduced, how the loss changed, and whether it is kept.

    Args:
        guard: The test.
        name: The matrix.
        rule: The rule of its rank, as JSON.
        rank: The rank.
        start: The windows' losses before the first trial.
        current: Their losses before this trial.
        losses: Their losses in this trial.
    """
    step, whole = (paired(before, losses, guard.confidence) for before in (current, start))
    return {
        "tensor": name,
        "rule": rule,
        "rank": rank,
        "difference": _as_json(step),
        "against_start": _as_json(whole),
        "kept": accepts(step, whole, guard.margin),
        "losses": list(losses),
    }


def difference(guard: Guard, before: Sequence[float], after: Sequence[float]) -> Compared:
    """Return the difference between the losses of windows, with its error and its bound."""
    return {
        "before": _rounded(fmean(before)),
        "after": _rounded(fmean(after)),
        **_as_json(paired(before, after, guard.confidence)),
    }


def _from_the_top(names: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return candidates by layer, the last layer first; within a layer, against the direction of the data flow."""
    layers: dict[int, list[str]] = {}
    for name in names:
        layers.setdefault(layer_of(name) or 0, []).append(name)
    order = {matrix: position for position, matrix in enumerate(MATRICES)}
    return [
        (layer, sorted(layers[layer], key=lambda name: -order[str(matrix_of(name))]))
        for layer in sorted(layers, reverse=True)
    ]


def _as_json(difference: PairedDifference) -> Difference:
    return {
        "mean": _rounded(difference.mean),
        "stderr": _rounded(difference.stderr),
        "upper": _rounded(difference.upper),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
