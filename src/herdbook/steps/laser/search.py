"""The search step: choosing a model's matrices and their ranks by ranking and by trials.

The search is greedy, from the last layer to the first: each candidate is tried with each rule in the recipe's order, until
the guard keeps one. No layer below the current one has changed yet, so the hidden states that enter it are unchanged and
are kept on disk; a trial reruns only that layer and those above it. Every trial is recorded as soon as it is done, and an
interrupted search resumes after the last one.
"""

from __future__ import annotations

import contextlib
import json
import os
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from herdbook.architectures.dense import MATRICES, layer_of, matrix_of
from herdbook.files import write_json, write_text
from herdbook.inference.forward import LayerwiseModel
from herdbook.inference.text import calibration_id, windows
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.progress import say, track
from herdbook.steps.laser.decompose import approximate
from herdbook.steps.laser.gradient import gradients, predicted_changes
from herdbook.steps.laser.guard import accepts, paired
from herdbook.steps.laser.rank import keep, laser_rmt_snr, signal_to_noise
from herdbook.steps.laser.states import States
from herdbook.steps.laser.store import DecompositionStore
from herdbook.steps.laser.whiten import whiten_layer
from herdbook.weights.tensors import sha256_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from herdbook.plan import Plan, Search
    from herdbook.recipe import Guard, RankRule
    from herdbook.recipe.rank import CanonicalRule
    from herdbook.steps.laser.decompose import Decomposition
    from herdbook.steps.laser.guard import PairedDifference

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
        """Rank, try, confirm, and write the result."""
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
            if self._guard:
                assert states is not None  # noqa: S101 - a guard reads text
                result |= self._greedy(names, states)
            else:
                result["chosen"] = dict.fromkeys(sorted(names), self._planned.ranks[0].canonical)
        finally:
            if states:
                states.remove()
        write_json(self._plan.layout.search(self._planned), result)
        self._plan.layout.journal(self._planned).unlink(missing_ok=True)

    # -- ranking ---------------------------------------------------------------------------------------------------

    def _ranking(self, by: str, names: Sequence[str], states: States | None) -> list[dict[str, Any]]:
        """Return all candidates with their scores; the most promising one comes first."""
        scores: dict[str, float] = {}
        with track(f"ranking {self._planned.model}", len(names)) as advance:
            if by == "gradient":
                assert states is not None  # noqa: S101 - a gradient reads text
                for name, gradient in gradients(self._model, states, self._windows, names):
                    matrix, sha256 = self._matrix(name)
                    decomposition = self._store.decomposition(matrix, sha256)
                    rank = keep(self._planned.ranks[0], decomposition.values, *matrix.shape).rank
                    scores[name] = float(predicted_changes(matrix, decomposition, gradient)[rank])
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

    # -- trying ----------------------------------------------------------------------------------------------------

    def _greedy(self, names: Sequence[str], states: States) -> dict[str, Any]:
        assert self._guard is not None  # noqa: S101 - trials need a guard
        start = self._losses(self._model.layers, states, {})
        current = start
        accepted: dict[str, torch.Tensor] = {}
        chosen: dict[str, CanonicalRule] = {}
        journal = Journal(self._plan.layout.journal(self._planned), self._planned.key, start)
        if journal.trials:
            say(f"search {self._planned.model}: resuming after {len(journal.trials)} trials")
        with journal, track(f"search {self._planned.model}", len(names)) as advance:
            for layer, group in _from_the_top(names):
                self._whiten(layer, group, states)
                for name in group:
                    matrix, sha256 = self._matrix(name)
                    for rule in self._planned.ranks:
                        decomposition = self._decomposition(matrix, sha256, rule)
                        rank = keep(rule, decomposition.values, *matrix.shape).rank
                        if rank >= len(decomposition.values):
                            continue
                        trial = journal.known(name, rule.canonical)
                        if trial is None:
                            reduced = approximate(matrix, decomposition, rank, self._store.device)
                            losses = self._losses(layer, states, {**accepted, name: reduced})
                            trial = judged(self._guard, name, rule.canonical, rank, start, current, losses)
                            journal.add(trial)
                        if trial["kept"]:
                            accepted[name] = approximate(matrix, decomposition, rank, self._store.device)
                            chosen[name] = rule.canonical
                            current = trial["losses"]
                            break
                    advance()
        return {
            "chosen": dict(sorted(chosen.items())),
            "trials": journal.trials,
            "start": start,
            "end": current,
            "difference": difference(self._guard, start, current),
            "confirmation": self._confirm(accepted),
        }

    def _confirm(self, accepted: Mapping[str, torch.Tensor]) -> dict[str, float]:
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
    rule: Any,
    rank: int,
    start: Sequence[float],
    current: Sequence[float],
    losses: Sequence[float],
) -> dict[str, Any]:
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


def difference(guard: Guard, before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """Return the difference between the losses of windows, with its error and its bound."""
    return {
        "before": _rounded(fmean(before)),
        "after": _rounded(fmean(after)),
        **_as_json(paired(before, after, guard.confidence)),
    }


class Journal:
    """The trials of a search, one per line; each is written to the disk before the next begins.

    Args:
        path: The journal's file. If it contains trials of the same search with the same start, the search resumes there.
        key: The search's key.
        start: The windows' losses at the start.
    """

    def __init__(self, path: Path, key: str, start: Sequence[float]) -> None:
        self.trials: list[dict[str, Any]] = []
        self._path, self._head = path, {"key": key, "start": list(start)}
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        complete = lines[:-1]  # the last item is empty, or a line that was only partly written
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if complete and json.loads(complete[0]) == self._head:
                for line in complete[1:]:
                    trial = json.loads(line)
                    trial["tensor"], trial["rule"], trial["kept"], trial["losses"]  # all keys must exist
                    self.trials.append(trial)
        self._known = {self._name(trial["tensor"], trial["rule"]): trial for trial in self.trials}

    def __enter__(self) -> Self:
        write_text(self._path, "".join(self._line(entry) for entry in (self._head, *self.trials)))
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def known(self, tensor: str, rule: CanonicalRule) -> dict[str, Any] | None:
        """Return the trial of a tensor and a rule; None if it was not made yet."""
        return self._known.get(self._name(tensor, rule))

    def add(self, trial: dict[str, Any]) -> None:
        """Record a trial."""
        self.trials.append(trial)
        self._file.write(self._line(trial))
        self._file.flush()
        os.fsync(self._file.fileno())

    @staticmethod
    def _line(entry: dict[str, Any]) -> str:
        return json.dumps(entry, sort_keys=True) + "\n"

    @staticmethod
    def _name(tensor: str, rule: CanonicalRule) -> tuple[str, str]:
        return tensor, json.dumps(rule, sort_keys=True)


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


def _as_json(difference: PairedDifference) -> dict[str, float]:
    return {
        "mean": _rounded(difference.mean),
        "stderr": _rounded(difference.stderr),
        "upper": _rounded(difference.upper),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
