"""Dense merges: mergekit's configuration of a step becomes an entry of the recipe, or several for several slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.humanize import did_you_mean
from herdbook.importing import methods
from herdbook.importing.combination import Combination
from herdbook.importing.ignored import say_what_is_ignored
from herdbook.importing.parameters import Condition, in_recipe, parameter
from herdbook.importing.references import Reference
from herdbook.importing.slices import (
    base_at,
    base_of,
    layers_in_recipe,
    range_in_recipe,
    repetitions,
    sources_of,
)
from herdbook.importing.tokens import tokenizer_in_recipe

if TYPE_CHECKING:
    from herdbook.importing.configuration import DenseConfiguration, Piece, Source
    from herdbook.importing.models import Models
    from herdbook.importing.value import Notes, Value
    from herdbook.recipe.mergekit_methods import Method

DTYPES = ("bfloat16", "float16", "float32")
STACK = "passthrough"
SEMANTICS = "mergekit-0.1.5"


def dense(configuration: DenseConfiguration, name: str, models: Models) -> dict[str, Any]:
    """Return the entries of a recipe that a dense merge becomes; the last one is the merge.

    Args:
        configuration: The merge.
        name: The merge's name in the recipe.
        models: The recipe's models, to which the merged ones are added.
    """
    if configuration.modules:
        return {name: {"merge": modular(configuration, name, models)}}
    value = configuration.value
    method = methods.ALL.get(configuration.method)
    say_what_is_ignored(configuration, method, name)
    if method is None:
        methods.refuse_unknown(configuration.method, value.get("merge_method") or value)
        return {}
    for key in ("dtype", "out_dtype"):
        dtype = getattr(configuration, key)
        if dtype is not None and dtype not in DTYPES:
            (value.get(key) or value).refuse(
                f"{dtype!r} is not one of {', '.join(DTYPES)}{did_you_mean(dtype, DTYPES)}"
            )
    merge = _Dense(configuration, method, models, name)
    if configuration.module and len(configuration.pieces) > 1:
        value.refuse(
            f"modules.{configuration.module}.slices: {len(configuration.pieces)} slices are given, and modules are merged whole"
        )
        return {}
    if configuration.method == STACK:
        entries = {name: merge.copy() if configuration.is_whole or configuration.module else merge.stack()}
    elif len(configuration.pieces) == 1:
        entries = {name: merge.merge(configuration.pieces[0], name)}
    else:
        entries = merge.pieces()
    return {key: {"merge": entry} for key, entry in entries.items()}


def modular(configuration: DenseConfiguration, name: str, models: Models) -> dict[str, Any]:
    """Return a merge of each module for itself.

    Args:
        configuration: The merge, with modules.
        name: Its name in the recipe.
        models: The recipe's models, to which the merged ones are added.
    """
    entry: dict[str, Any] = {"method": "modules", "modules": {}}
    for part in configuration.modules:
        made = dense(part, name, models).get(name, {"merge": {}})["merge"]
        entry["modules"][part.module] = {key: value for key, value in made.items() if key != "tokenizer"}
    at = configuration.tokenizer or configuration.base_at or configuration.value
    tokens = configuration.tokens
    keeper = configuration.base
    if configuration.chat_template:
        (configuration.value.get("chat_template") or configuration.value).refuse(
            "models of several modules keep that of their tokenizer's model"
        )
    if tokens and (tokens.tokens or tokens.pad or tokens.source == "union"):
        at.refuse("rows of models of several modules are not lined up; name `base`, or a model")
    elif tokens and isinstance(tokens.source, Reference):
        keeper = tokens.source
    return {**entry, **({"tokenizer": models.name(keeper, at)} if keeper else {})}


@dataclass(frozen=True)
class _Dense:
    configuration: DenseConfiguration
    method: Method
    models: Models
    name: str

    @property
    def notes(self) -> Notes:
        return self.configuration.value.notes

    @property
    def combination(self) -> Combination:
        return Combination(self.configuration, self.method, self.name)

    def _semantics(self, name: str) -> dict[str, Any]:
        """Return the semantics that give mergekit's bits, for methods whose formulas are written in the recipe language."""
        if "semantics" not in self.combination.fields:
            return {}
        self.notes.assume(
            "semantics: those of mergekit 0.1.5, as no version is named; some older ones rounded otherwise",
            *self.combination.at("semantics", name),
        )
        return {"semantics": SEMANTICS}

    def copy(self) -> dict[str, Any]:
        """Return a whole model that is copied or scaled: a sum of this model alone, since its layers need no counting."""
        piece = self.configuration.pieces[0]
        if len(piece.sources) != 1:
            self._one_source(piece)
            return {}
        source = piece.sources[0]
        scale = parameter(self.combination.levels(piece, source), "scale", "number")
        if scale and scale[-1].filter is not None:
            scale.append(Condition(None, 1.0))
        model = {"model": self._name(source.model, _at(source))}
        if scale:
            model["weight"] = in_recipe(scale)
        self.notes.assume(
            "passthrough of one whole model is written as the sum of this model alone, which copies or scales it",
            *self.combination.at("method"),
        )
        return {
            "method": "linear",
            **self._semantics(self.name),
            "models": [model],
            "normalize": False,
            **layers_in_recipe(piece.sources, [model["model"]]),
            **self._common(self.configuration.base),
        }

    def stack(self) -> dict[str, Any]:
        """Return a stack of layers, which are copied or scaled."""
        slices = []
        for piece in self.configuration.pieces:
            sources = piece.sources
            if len(sources) != 1:
                self._one_source(piece)
                continue
            source = sources[0]
            scale = parameter(self.combination.levels(piece, source), "scale", "number")
            slices.append(
                {
                    "model": self._name(source.model, _at(source)),
                    "layers": range_in_recipe(source.layers or (0, 1)),
                    **({"scale": in_recipe(scale)} if scale and scale != [Condition(None, 1.0)] else {}),
                }
            )
        return {
            "method": STACK,
            **self._semantics(self.name),
            "slices": slices,
            **self._common(self.configuration.base),
        }

    def _one_source(self, piece: Piece) -> None:
        if not self.notes.problems:
            piece.value.refuse(
                f"passthrough takes one model for each slice, and {len(piece.sources)} are given: "
                f"{', '.join(str(source.model) for source in piece.sources)}"
            )

    def pieces(self) -> dict[str, dict[str, Any]]:
        """Return a merge for each slice, and the stack of these."""
        entries, slices = {}, []
        for number, piece in enumerate(self.configuration.pieces, start=1):
            name = self.models.reserve(f"{self.name}-slice-{number}")
            entries[name] = self.merge(piece, name)
            first, stop = next((source.layers for source in piece.sources if source.layers), (0, 1))
            slices.append({"model": name, "layers": range_in_recipe((0, stop - first))})
        self.notes.assume(
            "each slice is a merge of its own, whose layers are stacked; embeddings are those of the first, last norm and head those "
            "of the last, as in mergekit",
            *self.combination.at("slices"),
        )
        entries[self.name] = {"method": STACK, "slices": slices}
        return entries

    def merge(self, piece: Piece, name: str) -> dict[str, Any]:
        """Return a merge of models, or of runs of their layers."""
        method, base = self.configuration.method, base_of(self.configuration, piece)
        if base is None and self.method.base == "required":
            self.configuration.value.refuse(f"`base_model` is missing; {method} needs one")
            return {}
        sources = sources_of(self.configuration, piece, self.method, *self.combination.at("", name))
        entry: dict[str, Any] = {"method": method}
        if base is not None and self.method.base != "ignored":
            entry["base"] = self._name(base, base_at(self.configuration, piece))
        entry |= self._semantics(name)
        names = [
            self._name(source.model, _at(source), again)
            for source, again in zip(sources, repetitions(sources), strict=True)
        ]
        merged = list(zip(sources, names, strict=True))
        others = [pair for pair in merged if self.method.base == "ignored" or pair[0].model != base]
        if method == "slerp" and not others:
            others = merged[1:]  # a model with itself
        if not others or (self.method.models and len(others) != self.method.models):
            needed = self.method.models or "at least one model"
            if not self.notes.problems:  # otherwise it may be that a model could not be read
                missing = base is not None and base not in (source.model for source in piece.sources)
                apart = f"; the base {base} is not among the models" if missing else ""
                piece.value.refuse(
                    f"{method} merges {needed} besides the base, and {len(others)} are given{apart}"
                )
            return {}
        entry |= self.combination.entry(piece, others, name)
        return {**entry, **layers_in_recipe(sources, names), **self._common(base)}

    def _common(self, base: Reference | None) -> dict[str, Any]:
        configuration = self.configuration
        entry: dict[str, Any] = {}
        if configuration.dtype:
            entry["dtype"] = configuration.dtype
        elif not configuration.out_dtype:
            self.notes.assume(
                "dtype: the models' own, since the configuration names none", *self.combination.at("method")
            )
        if configuration.out_dtype and configuration.out_dtype != configuration.dtype:
            entry["out_dtype"] = configuration.out_dtype
        if configuration.tokens or configuration.chat_template:
            at = configuration.tokenizer or configuration.value
            entry["tokenizer"] = tokenizer_in_recipe(
                configuration.tokens, configuration.chat_template, lambda reference: self._name(reference, at)
            )
        elif base and (self.method.base == "ignored" or base != configuration.base):
            entry["tokenizer"] = self._name(
                configuration.base or base, configuration.base_at or configuration.value
            )
        elif base is None and len(set(configuration.references)) > 1:
            self.notes.assume(
                "tokenizer: the first model's, since no base and no tokenizer is given; mergekit takes that of any model",
                *self.combination.at("method"),
            )
        return entry

    def _name(self, reference: Reference, at: Value, again: int = 0) -> str:
        return self.models.name(reference, at, again=again)


def _at(source: Source) -> Value:
    return source.value.get("model") or source.value
