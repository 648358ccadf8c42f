"""A base and its fine-tune: whether an adapter can lead from the one to the other, and what becomes of each tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from herdbook.architectures.form import EMBEDDINGS, HEAD
from herdbook.architectures.meaning import differences, is_tied
from herdbook.architectures.modules import reads_images
from herdbook.errors import RecipeError, StepError
from herdbook.extract.linear import linear_of
from herdbook.humanize import did_you_mean, plural
from herdbook.weights.loading import loading_problems
from herdbook.weights.tensors import DTYPES, from_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from herdbook.extract.model import Model
    from herdbook.recipe.rank import RankRule

# What becomes of a tensor that differs: factors of low rank, a bias beside them, a copy of the fine-tune's, or nothing. Others
# must be equal.
Treatment = Literal["matrix", "bias", "saved", "left out", "other"]

PIECE_ELEMENTS = 1 << 23  # elements of a tensor that are compared at a time: 64 MB of float64


@dataclass(frozen=True)
class Choice:
    """What the user chose.

    Args:
        rule: How much of each difference is kept.
        saved: Patterns of modules that are saved whole if they differ (``modules_to_save``).
        left_out: Patterns of modules whose differences are left out.
    """

    rule: RankRule
    saved: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class Pair:
    """A base, its fine-tune, and a choice; see ``problems`` for what they must have in common.

    Args:
        base: The base.
        tuned: The fine-tune.
        choice: The choice.

    Raises:
        RecipeError: If no adapter is possible, from their headers and configurations alone.
    """

    def __init__(self, base: Model, tuned: Model, choice: Choice) -> None:
        self.base, self.tuned, self.choice = base, tuned, choice
        if found := self._problems():
            raise RecipeError(found)
        self._linear = linear_of(base.locked.config, _names(base), base.place)
        if found := self._problems_of_choice():
            raise RecipeError(found)
        self.names = sorted(_names(base))

    def treatment(self, name: str) -> Treatment:
        """Return what becomes of a tensor if it differs."""
        module, _, parameter = name.rpartition(".")
        if matches_any(self.choice.saved, module):
            return "saved"
        if matches_any(self.choice.left_out, module):
            return "left out"
        if parameter == "bias" and name in self._linear.names:
            return "bias"
        return "matrix" if name in self._linear.layers else "other"

    def named(self, *treatments: Treatment) -> list[str]:
        """Return the tensors with these treatments, sorted by name."""
        return [name for name in self.names if self.treatment(name) in treatments]

    def origin(self, name: str) -> Model:
        """Return the model whose bytes an adapter has of a whole tensor."""
        return self.base if self.treatment(name) == "left out" else self.tuned

    def check_unchanged(self) -> None:
        """Compare the files of both models with what they were when they were pinned. Raises SourceError if they changed."""
        for model in (self.base, self.tuned):
            model.check_unchanged()

    def change(self, name: str) -> float | None:
        """Return the norm of a tensor's difference, relative to the base's tensor (infinite if that is zero); None if equal.

        Both are read in pieces.

        Raises:
            CheckpointError: If one of them contains NaN or infinite values.
        """
        squares, of = 0.0, 0.0
        count = math.prod(self.base.shape(name))
        for start in range(0, count, PIECE_ELEMENTS):
            before, after = (
                _piece(model, name, start, min(count, start + PIECE_ELEMENTS))
                for model in (self.base, self.tuned)
            )
            squares += float(((after - before) ** 2).sum())
            of += float((before**2).sum())
        if squares == 0:
            return None
        return math.sqrt(squares / of) if of else math.inf

    def _problems(self) -> list[str]:
        """Return why no adapter leads from the base to the fine-tune, one line each."""
        problems = []
        for model in (self.base, self.tuned):
            config = model.locked.config
            if reads_images(config):
                problems.append(
                    f"{model.place}: also reads images, and adapters are extracted for models of text alone"
                )
                continue
            form = {name: model.shape(name) for name in model.spans}
            try:
                problems += [f"{model.place}: {problem}" for problem in loading_problems(config, form)]
            except StepError as error:  # transformers does not have the type, or is not installed
                problems.append(f"{model.place}: {error}")
            problems += [
                f"{model.place}: tensor {name} has dtype {model.dtype(name)}; expected one of {', '.join(DTYPES)}"
                for name in _names(model)
                if model.dtype(name) not in DTYPES
            ]
        if problems:
            return problems
        mine, theirs = self.tuned.locked.config, self.base.locked.config
        who = f"{self.tuned.place} is not a fine-tune of {self.base.place}: "
        if mine["model_type"] != theirs["model_type"]:
            return [f"{who}its model_type is {mine['model_type']!r}, not {theirs['model_type']!r}"]
        problems += [f"{who}it has {difference}" for difference in differences(mine, theirs)]
        if is_tied(mine) != is_tied(theirs):
            problems.append(f"{who}only one of them has tied embeddings (tie_word_embeddings)")
        ours, others = _names(self.tuned), _names(self.base)
        for name in sorted(ours.keys() ^ others.keys()):
            problems.append(f"{who}only {'it' if name in ours else 'the base'} has the tensor {name}")
        for name in sorted(ours.keys() & others.keys()):
            if ours[name] != others[name]:
                hint = (
                    ". The vocabulary was resized; resize that of the base first"
                    if name in {EMBEDDINGS, HEAD}
                    else ""
                )
                problems.append(f"{who}{name} has shape {list(ours[name])}, not {list(others[name])}{hint}")
        shown = 8
        more = (
            [f"{who}and {plural(len(problems) - shown, 'more difference')}"] if len(problems) > shown else []
        )
        return problems[:shown] + more

    def _problems_of_choice(self) -> list[str]:
        modules: dict[str, list[str]] = {}
        for name in _names(self.base):
            modules.setdefault(name.rpartition(".")[0], []).append(name)
        ends = {module.rpartition(".")[2] for module in modules}
        problems = []
        for option, patterns in (
            ("--modules-to-save", self.choice.saved),
            ("--leave-out", self.choice.left_out),
        ):
            problems += [
                f"{option} {pattern}: no module of {self.base.place} has such a name{did_you_mean(pattern, sorted(ends))}"
                for pattern in patterns
                if not any(matches(pattern, module) for module in modules)
            ]
        for module, names in modules.items():
            saved = matches_any(self.choice.saved, module)
            if saved and matches_any(self.choice.left_out, module):
                problems.append(f"{module}: both --modules-to-save and --leave-out name it")
            if saved and (others := [name for name in names if name not in self._linear.names]):
                problems.append(
                    f"--modules-to-save: {others[0]} has another name in transformers, under which PEFT would look for it; "
                    "leave it out"
                )
            if saved and self._linear.tied and f"{module}.weight" == self._linear.embeddings:
                problems.append(
                    f"--modules-to-save: {module} is also the model's output head (tie_word_embeddings), and PEFT would "
                    "replace one of the two uses alone"
                )
        return problems


def matches(pattern: str, module: str) -> bool:
    """Return whether a pattern names a module: its whole name, or what follows one of its dots."""
    return fnmatchcase(module, pattern) or fnmatchcase(module, f"*.{pattern}")


def matches_any(patterns: Sequence[str], module: str) -> bool:
    """Return whether one of several patterns names a module."""
    return any(matches(pattern, module) for pattern in patterns)


def _names(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that transformers computes with, by name."""
    unread = {HEAD} if is_tied(model.locked.config) else set()
    return {
        name: model.shape(name)
        for name in model.spans
        if name not in unread and not name.endswith("inv_freq")
    }


def _piece(model: Model, name: str, start: int, stop: int) -> torch.Tensor:
    import torch

    data = model.read(name, start, stop)
    what = f"{model.place}: {name}"
    return from_bytes(data, model.dtype(name), (stop - start,), what).to(torch.float64)
