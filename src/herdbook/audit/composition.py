"""What a model is made of, where no configuration says so: which candidates' layers it has, and in which proportions.

Rows are sampled of a few matrices of each layer. A layer whose rows are those of a candidate's layer is a copy. Otherwise
least squares give the weights of the sum of the candidates' rows that comes nearest. If nothing but roundings is left, that is the
merge: as many numbers fit by chance as never. If more is left, the weights are a likelihood, and the share that they explain is
stated.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import torch

from herdbook.audit.level import LEVEL, UNPROVEN
from herdbook.audit.reduced import reduced
from herdbook.errors import HerdbookError
from herdbook.humanize import ranges
from herdbook.progress import track
from herdbook.release.finding import Check
from herdbook.weights.dtypes import ITEM_BYTES
from herdbook.weights.tensors import from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.audit.model import Model
    from herdbook.release.finding import Finding, Options

COPIED = Check(LEVEL, "copied")
SUMMED = Check(LEVEL, "summed")
EXPERT = Check(LEVEL, "expert")
# What is sampled of each layer, and outside of layers.
MATRICES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
ENDS = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
NUMBERS = 1 << 14  # of each matrix
SHOWN = 1 << 9  # numbers by which layers at other places are compared
# The root mean square of what is left, in units of the merge's own rounding, up to which nothing but roundings is left.
LARGEST_REST = 1.5
LEAST_WEIGHT = 0.005  # a smaller weight counts as none
SAME_WEIGHTS = 0.01  # how far weights of two layers are apart that count as equal


@dataclass(frozen=True)
class Sum:
    """The weighted sum of candidates that comes nearest to some numbers.

    Args:
        weights: The weight of each candidate, by name.
        rest: The root mean square of what is left, in units of the rounding of a number.
        explained: The share of the squares that is not left.
    """

    weights: dict[str, float]
    rest: float
    explained: float

    @property
    def is_exact(self) -> bool:
        """Whether nothing but roundings is left."""
        return self.rest <= LARGEST_REST

    @property
    def text(self) -> str:
        """The sum for people."""
        taken = {name: weight for name, weight in self.weights.items() if abs(weight) >= LEAST_WEIGHT}
        return " + ".join(f"{weight:.3f} * {name}" for name, weight in taken.items()) or "0"


@dataclass
class _Found:
    """What is found of the layers.

    Args:
        copies: By layer: the candidate and its layer.
        sums: By layer: the sum that comes nearest.
        unread: Layers that no candidate has.
    """

    copies: dict[int, tuple[str, int]] = field(default_factory=dict)
    sums: dict[int, Sum] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)


class Composition:
    """The comparison of a model with candidates.

    Args:
        merge: The model.
        candidates: The models that it may be made of, by name.
    """

    def __init__(self, merge: Model, candidates: Mapping[str, Model]) -> None:
        self.merge, self.candidates = merge, candidates

    def check(self, options: Options) -> Iterator[Finding]:
        """Compare, and yield the findings."""
        found, chance = _Found(), Random(options.seed)  # noqa: S311 - anyone must be able to repeat the draw
        with track("composition", self.merge.layers) as advance:
            for layer in range(self.merge.layers):
                self._layer(layer, found, chance)
                advance()
        yield from self._copies(found)
        yield from self._sums(found)
        if self.merge.family:
            yield from self._experts()
        used = {name for name, _ in found.copies.values()}
        for total in found.sums.values():
            used |= {name for name, weight in total.weights.items() if abs(weight) >= LEAST_WEIGHT}
        for name in self.candidates:
            if name not in used:
                yield COPIED.unverified(name, "takes no part: no sampled row is its, and its weight is zero")
        if found.unread:
            yield UNPROVEN.unverified(
                "layers",
                f"Layers {ranges(found.unread)} are not explained: no candidate has such a layer.",
            )
        detail = "The tensors that were not sampled are not proven, and neither is what the candidates were made of."
        yield UNPROVEN.unverified("composition", detail)

    # -- layers

    def _layer(self, layer: int, found: _Found, chance: Random) -> None:
        names = [f"model.layers.{layer}.{matrix}.weight" for matrix in MATRICES]
        names = [name for name in names if name in self.merge.pieces]
        if not names:
            return
        for candidate, model in self.candidates.items():
            for place in [layer, *(other for other in range(model.layers) if other != layer)]:
                if self._same(names, candidate, layer, place):
                    found.copies[layer] = candidate, place
                    return
        total = self._fitted(names, chance)
        if total is None:
            found.unread.append(layer)
        else:
            found.sums[layer] = total

    def _same(self, names: list[str], candidate: str, layer: int, place: int) -> bool:
        """Return whether sampled rows of a layer are those of a candidate's layer at some place."""
        model = self.candidates[candidate]
        for name in names:
            other = name.replace(f"model.layers.{layer}.", f"model.layers.{place}.")
            ours, theirs = self.merge.pieces[name], model.pieces.get(other)
            if theirs is None or theirs.shape != ours.shape or theirs.dtype != ours.dtype:
                return False
            size = min(SHOWN * ours.item_bytes, ours.size_bytes)
            if self.merge.read(name, 0, size) != model.read(other, 0, size):
                return False
        return True

    def _fitted(self, names: list[str], chance: Random) -> Sum | None:
        """Return the sum of the candidates' rows that comes nearest to those of some tensors; None if no candidate fits."""
        ours: list[torch.Tensor] = []
        theirs: dict[str, list[torch.Tensor]] = defaultdict(list)
        fitting = [
            candidate
            for candidate, model in self.candidates.items()
            if all(
                name in model.pieces and model.pieces[name].shape == self.merge.pieces[name].shape
                for name in names
            )
        ]
        if not fitting:
            return None
        dtype = self.merge.pieces[names[0]].dtype
        for name in names:
            count = self.merge.pieces[name].size_bytes // self.merge.pieces[name].item_bytes
            start = chance.randrange(max(1, count - NUMBERS + 1))
            stop = min(count, start + NUMBERS)
            ours.append(_numbers(self.merge, name, start, stop))
            for candidate in fitting:
                theirs[candidate].append(_numbers(self.candidates[candidate], name, start, stop))
        return fit(torch.cat(ours), {name: torch.cat(held) for name, held in theirs.items()}, dtype)

    # -- findings

    def _copies(self, found: _Found) -> Iterator[Finding]:
        shifts: dict[tuple[str, int], list[int]] = defaultdict(list)
        for layer, (candidate, place) in found.copies.items():
            shifts[candidate, place - layer].append(layer)
        for (candidate, shift), layers in sorted(shifts.items(), key=lambda item: item[1]):
            where = f" (its layers {ranges(layer + shift for layer in layers)})" if shift else ""
            yield COPIED.passed(
                f"layers {ranges(layers)}", f"are copies of {candidate}{where}: all sampled rows are equal"
            )

    def _sums(self, found: _Found) -> Iterator[Finding]:
        groups: list[tuple[Sum, list[int]]] = []
        for layer, total in sorted(found.sums.items()):
            for first, layers in groups:
                if first.is_exact == total.is_exact and _alike(first, total):
                    layers.append(layer)
                    break
            else:
                groups.append((total, [layer]))
        for total, layers in groups:
            rest = max(found.sums[layer].rest for layer in layers)
            label = f"layers {ranges(layers)}"
            if total.is_exact:
                detail = f"are {total.text}: what is left is {rest:.2f} times the rounding of a number, so this is the merge"
                yield SUMMED.passed(label, detail)
            else:
                least = min(found.sums[layer].explained for layer in layers)
                detail = (
                    f"are near {total.text}, but {rest:.3g} times the rounding of a number is left (the sum explains {least:.2%} of "
                    "the squares). This is a likelihood: another model takes part, or the method is not a sum"
                )
                yield SUMMED.unverified(label, detail)

    def _experts(self) -> Iterator[Finding]:
        """Yield of each expert of a mixture which candidate's it is, and if it was reduced, to which rank."""
        family = self.merge.family
        assert family  # noqa: S101 - only mixtures have experts
        layer, expert = self.merge.layers // 2, 0
        while (name := family.expert(layer, expert, "up_proj")) in self.merge.pieces:
            dense = f"model.layers.{layer}.mlp.up_proj.weight"
            try:
                yield self._expert(expert, name, dense, layer)
            except HerdbookError as error:
                yield EXPERT.error(f"expert {expert + 1}", error)
            expert += 1

    def _expert(self, expert: int, name: str, dense: str, layer: int) -> Finding:
        label = f"expert {expert + 1}"
        ours = self.merge.pieces[name]
        fitting = {
            candidate: model
            for candidate, model in self.candidates.items()
            if dense in model.pieces and model.pieces[dense].shape == ours.shape
        }
        count = ours.size_bytes // ours.item_bytes
        found = _numbers(self.merge, name, 0, count)
        distances: dict[str, float] = {}
        for candidate, model in fitting.items():
            theirs = _numbers(model, dense, 0, count)
            if bool((theirs == found).all()):
                return EXPERT.passed(label, f"is {candidate}: up_proj of layer {layer} is equal")
            distances[candidate] = float((theirs - found).norm() / theirs.norm())
        if not distances:
            return EXPERT.unverified(label, "no candidate has matrices of its shape")
        nearest = min(distances, key=lambda candidate: distances[candidate])
        theirs = _numbers(fitting[nearest], dense, 0, count).reshape(ours.shape)
        outcome = reduced(found.reshape(ours.shape), theirs, ours.dtype)
        if outcome is None:
            detail = (
                f"is nearest to {nearest} (up_proj of layer {layer} differs by {distances[nearest]:.2%} of its norm), and has its full "
                "rank: trained or merged, not lasered"
            )
            return EXPERT.unverified(label, detail)
        return EXPERT.passed(
            label,
            f"is {nearest}, lasered: up_proj of layer {layer} is its matrix cut to rank {outcome.rank} of {outcome.full}; "
            f"{outcome.lost:.2%} of the energy is lost, and nothing but roundings is left",
        )


def fit(found: torch.Tensor, candidates: Mapping[str, torch.Tensor], dtype: str) -> Sum:
    """Return the weighted sum of candidates that comes nearest, by least squares.

    Args:
        found: The numbers.
        candidates: The candidates' numbers at the same places.
        dtype: The dtype in which the numbers are stored, by safetensors' code.
    """
    from herdbook.weights.tensors import DTYPES

    matrix = torch.stack([one.double() for one in candidates.values()], dim=1)
    numbers = found.double()
    # the difference from the first candidate is small between fine-tunes; directions are scaled so that this loses nothing
    directions = torch.cat([matrix[:, :1], matrix[:, 1:] - matrix[:, :1]], dim=1)
    scale = directions.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    solved = torch.linalg.lstsq(directions / scale, numbers[:, None], driver="gelsd").solution[:, 0] / scale
    weights = torch.cat([(solved[0] - solved[1:].sum())[None], solved[1:]])
    left = numbers - matrix @ weights
    unit = torch.finfo(DTYPES[dtype]).eps * torch.maximum(numbers.abs(), matrix.abs().amax(dim=1)) / 12**0.5
    rest = float(
        (left.square().sum() / unit.square().sum().clamp(min=torch.finfo(torch.float64).tiny)).sqrt()
    )
    energy = float(numbers.square().sum())
    explained = 1 - float(left.square().sum()) / energy if energy else 1.0
    return Sum(dict(zip(candidates, map(float, weights), strict=True)), rest, explained)


def _alike(first: Sum, other: Sum) -> bool:
    return first.weights.keys() == other.weights.keys() and all(
        abs(weight - other.weights[name]) <= SAME_WEIGHTS for name, weight in first.weights.items()
    )


def _numbers(model: Model, name: str, start: int, stop: int) -> torch.Tensor:
    piece = model.pieces[name]
    item = ITEM_BYTES[piece.dtype]
    data = model.read(name, start * item, stop * item)
    return from_bytes(data, piece.dtype, (stop - start,), f"{model.subject.name}: {name}").float()
