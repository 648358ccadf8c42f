"""The check of an extracted adapter: that it is what its record states, from its bytes and those of both models."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from herdbook import jsonio, limits
from herdbook.errors import RecipeError, SourceError
from herdbook.extract.adapter import factor_names, settings, stored_name
from herdbook.extract.extraction import equal_count, read_record
from herdbook.extract.pair import Choice, Pair
from herdbook.extract.record import RECORD
from herdbook.extract.whole import compare_whole
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.lock import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from herdbook.progress import track
from herdbook.recipe import rank_rule
from herdbook.weights.checkpoint import digest_shard, read_header, read_span
from herdbook.weights.tensors import from_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch

    from herdbook.extract.model import Model
    from herdbook.extract.record import Record
    from herdbook.weights.checkpoint import Span

# How much worse than the best approximation a product may be, relative to the norm of the change: rounding its factors to
# float32 costs at most about 2^-23 times the root of the rank, directions from a Gram matrix at most about 1e-6.
TOLERANCE = 1e-5
# Singular values of a Gram matrix that are zero up to rounding, relative to the largest.
ZERO = 1e-6


def check_adapter(base: Model, tuned: Model, folder: Path, threads: int = 1) -> list[str]:
    """Compare an adapter with its record and both models, and return what is wrong, one line each.

    Of each matrix, the distance of the product from the difference is computed and compared with that of the best
    approximation of its rank, which the singular values alone give. So no bit of a decomposition has to be repeated.

    Args:
        base: The base.
        tuned: The fine-tune.
        folder: The adapter's folder.
        threads: How many matrices are compared at a time.

    Raises:
        SourceError: If it has no record that can be read.
        RecipeError: If the models do not fit each other.
    """
    record = read_record(folder)
    if other := [
        f"{RECORD}: was made with another {what} than {model.place}: {stated.uri}"
        for what, model, stated in (
            ("BASE", base, record.request.base),
            ("TUNED", tuned, record.request.tuned),
        )
        if stated.files != model.about.files
    ]:
        return other
    try:
        rule = rank_rule(record.request.rank)
    except ValueError as error:
        raise SourceError(f"{folder}: {RECORD} is damaged: {error}") from error
    choice = Choice(rule, tuple(record.request.modules_to_save), tuple(record.request.leave_out))
    comparison = _Comparison(Pair(base, tuned, choice), folder, record)
    if problems := comparison.form():
        return problems
    return [*comparison.whole(), *comparison.matrices(threads)]


class _Comparison:
    def __init__(self, pair: Pair, folder: Path, record: Record) -> None:
        self.pair, self.record = pair, record
        self.weights = folder / ADAPTER_WEIGHTS
        self.spans: dict[str, Span] = read_header(self.weights)
        try:
            self.config = jsonio.load_object((folder / ADAPTER_CONFIG).read_bytes(), limits.DOCUMENT)
        except (FileNotFoundError, ValueError) as error:
            raise SourceError(f"{folder}: {ADAPTER_CONFIG} is missing or damaged: {error}") from error

    def form(self) -> list[str]:
        """Return what is wrong with the files: settings, digests, and the names of the tensors."""
        record = self.record
        if not record.matrices:
            return [f"{RECORD}: lists no matrix"]
        expected = settings(record.request.base, record.matrices, record)
        keys = sorted(expected.keys() | self.config.keys())
        if wrong := [key for key in keys if self.config.get(key, ...) != expected.get(key, ...)]:
            return [f"{ADAPTER_CONFIG}: does not follow from {RECORD}: {', '.join(wrong)}"]
        sha256, tensors = digest_shard(self.weights)
        if tensors != record.tensors or sha256 != record.file.get("sha256"):
            return [f"{ADAPTER_WEIGHTS}: is not the file that {RECORD} describes"]
        names = {key for name in record.matrices for key in factor_names(name)}
        names |= {stored_name(name, record.matrices) for name in (*record.saved, *record.biases)}
        return [
            f"{ADAPTER_WEIGHTS}: tensor {name} {'is missing' if name in names else f'does not follow from {RECORD}'}"
            for name in sorted(names ^ self.spans.keys())
        ]

    def whole(self) -> list[str]:
        """Return what is wrong with tensors that are not factors."""
        record = self.record
        try:
            expected = compare_whole(self.pair)
        except RecipeError as error:
            return error.lines
        problems = []
        for stated, computed in (
            (record.saved, expected.saved),
            (record.biases, expected.biases),
            (record.left_out, expected.left_out),
        ):
            problems += [
                f"{name}: {RECORD} does not state what became of it, or states another change"
                for name in sorted(stated.keys() | computed.keys())
                if name not in stated
                or name not in computed
                or not _close(stated[name].change, computed[name].change)
            ]
        for name in (*expected.saved, *expected.biases):
            model, span = self.pair.origin(name), self.spans.get(stored_name(name, record.matrices))
            if span is None or (span.dtype, tuple(span.shape)) != (model.dtype(name), model.shape(name)):
                problems.append(f"{name}: {ADAPTER_WEIGHTS} does not have it in the form of {model.place}")
            elif read_span(self.weights, span) != model.read(name):
                problems.append(f"{name}: is not that of {model.place}")
        if record.equal != equal_count(self.pair, record.matrices, expected):
            problems.append(f"{RECORD}: states {record.equal} equal tensors, which is not their number")
        return problems

    def matrices(self, threads: int) -> list[str]:
        """Return what is wrong with matrices of layers."""
        names = self.pair.named("matrix")
        unknown = sorted(self.record.matrices.keys() - set(names))
        problems = [f"{RECORD}: {name} is not a matrix of the model's layers" for name in unknown]
        with (
            one_thread_a_matrix(),
            ThreadPoolExecutor(threads) as pool,
            track("check", len(names)) as advance,
        ):
            for start in range(0, len(names), threads):
                for found in pool.map(self._matrix, names[start : start + threads]):
                    problems += found
                    advance()
        return problems

    def _matrix(self, name: str) -> list[str]:
        import torch

        from herdbook.steps.laser.decompose import singular_values

        entry = self.record.matrices.get(name)
        before = self.pair.base.matrix(name)
        difference = self.pair.tuned.matrix(name).sub_(before)
        norm, of = (float(torch.linalg.vector_norm(one)) for one in (difference, before))
        if (norm != 0) != (entry is not None):
            return [f"{name}: {'differs' if norm else 'is equal'}, and {RECORD} states otherwise"]
        if entry is None:
            return []
        del before
        values = singular_values(difference)
        a, b = (self._factor(key) for key in factor_names(name))
        rows, columns = difference.shape
        if a.shape != (entry.rank, columns) or b.shape != (rows, entry.rank):
            return [f"{name}: {ADAPTER_WEIGHTS} has other shapes than {RECORD} states"]
        problems = []
        if not self._follows(values, entry.rank, difference.shape):
            problems.append(f"{name}: rank {entry.rank} does not follow from the rule")
        best = math.sqrt(float((values[entry.rank :] ** 2).sum()))
        distance = float(torch.linalg.vector_norm(difference.sub_(b @ a)))
        if distance > best + TOLERANCE * norm:
            problems.append(
                f"{name}: the product is {distance / norm:.6f} of the change away from it, the best of its rank {best / norm:.6f}"
            )
        expected = {
            "of": (entry.of, len(values)),
            "energy": (entry.energy, float((values[: entry.rank] ** 2).sum() / (values**2).sum())),
            "change": (entry.change, norm / of if of else None),
        }
        return problems + [
            f"{name}: {RECORD} states {key} {stated}, computed {computed}"
            for key, (stated, computed) in expected.items()
            if not _close(stated, computed)
        ]

    def _follows(self, values: np.ndarray, rank: int, shape: torch.Size) -> bool:
        """Return whether a rank is the rule's, or lacks only values that are zero up to rounding."""
        from herdbook.steps.laser.rank import keep

        expected = keep(self.pair.choice.rule, values, *shape).rank
        between = values[min(rank, expected) : max(rank, expected)]
        return bool((between <= ZERO * values[0]).all())

    def _factor(self, key: str) -> torch.Tensor:
        import torch

        span = self.spans[key]
        data = read_span(self.weights, span)
        return from_bytes(data, span.dtype, span.shape, f"{self.weights}: {key}").to(torch.float64)


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=TOLERANCE)
