"""The models that a merge method combines, with their parameters, as the recipe language has them for that method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from herdbook.importing import methods
from herdbook.importing.parameters import in_recipe, parameter
from herdbook.recipe import Dense

if TYPE_CHECKING:
    from herdbook.importing.configuration import DenseConfiguration, Piece, Source
    from herdbook.importing.value import Notes, Value
    from herdbook.recipe.mergekit_methods import Method


@dataclass(frozen=True)
class Combination:
    """A merge of models by one method.

    Args:
        configuration: The merge.
        method: What is known of its method.
        name: The merge's name in the recipe.
    """

    configuration: DenseConfiguration
    method: Method
    name: str

    @property
    def fields(self) -> set[str]:
        """The keys that the recipe language has for the method."""
        sections = get_args(get_args(Dense)[0])
        return next(
            set(section.model_fields)
            for section in sections
            if self.configuration.method in get_args(section.model_fields["method"].annotation)
        )

    @property
    def notes(self) -> Notes:
        """What was noted while it was read."""
        return self.configuration.value.notes

    def entry(self, piece: Piece, others: list[tuple[Source, str]], name: str) -> dict[str, Any]:
        """Return what a merge's entry says of its models and their parameters.

        Args:
            piece: The slice.
            others: The models besides the base, with their names in the recipe.
            name: The name of the slice's merge in the recipe.
        """
        build = self._native if self.configuration.method in methods.NATIVE else self._as_named
        made = build(piece, others, name)
        if self.method.draws:
            self._drawn(name)
        return made

    def _native(self, piece: Piece, others: list[tuple[Source, str]], name: str) -> dict[str, Any]:
        method = self.configuration.method
        entry: dict[str, Any] = {}
        if method == "slerp":
            return {"other": others[0][1], "t": self._required(piece, None, "t", name)}
        for key in self.method.shared:
            if key in methods.WITHOUT_EFFECT or self.method.shared[key] != "boolean":
                continue
            if key in methods.UNUSED.get(method, ()):
                continue
            if (given := self._constant(piece, key)) is None:
                continue
            if key in self.fields:
                entry[key] = given
            elif given:
                piece.value.refuse(f"{key}: the recipe language has {method} without it only")
        if method == "model_stock":
            if len(others) < 2 and not self.notes.problems:
                piece.value.refuse(
                    "model_stock merges at least two models besides the base, and one is given"
                )
            return {**entry, "models": [model for _, model in others]}
        entry["models"] = []
        for source, model in others:
            item = {"model": model, "weight": self._required(piece, source, "weight", name)}
            density = parameter(self.levels(piece, source), "density", "number", shares=True)
            if "density" in methods.UNUSED.get(method, ()) or "density" not in self.method.of_models:
                density = []
            entry["models"].append({**item, **({"density": in_recipe(density)} if density else {})})
        if "lambda" in self.method.shared and (scale := parameter(self.levels(piece), "lambda", "number")):
            entry["lambda"] = in_recipe(scale)
        return entry

    def _as_named(self, piece: Piece, others: list[tuple[Source, str]], name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"models": []}
        levels = self.levels(piece)
        for source, model in others:
            own = self._given([source.parameters], self.method.of_models)
            entry["models"].append({"model": model, **({"parameters": own} if own else {})})
        shared = {key: kind for key, kind in self.method.shared.items() if key not in methods.WITHOUT_EFFECT}
        parameters = self._given(levels, {**shared, **self.method.of_models})
        for key in self.method.required:
            given = key in parameters or all(key in item.get("parameters", {}) for item in entry["models"])
            if not given and key == "weight":
                self._taken(key, name)
                parameters[key] = methods.TAKEN[key]
            elif not given:
                piece.value.refuse(f"{self.configuration.method} needs the parameter {key!r}")
        if parameters:
            entry["parameters"] = parameters
        return entry

    def _given(self, levels: list[Value | None], known: Any) -> dict[str, Any]:
        found = ((key, parameter(levels, key, kind, shares=key == "density")) for key, kind in known.items())
        return {key: in_recipe(conditions) for key, conditions in found if conditions}

    def _required(self, piece: Piece, source: Source | None, key: str, name: str) -> Any:
        conditions = parameter(self.levels(piece, source), key, "number", shares=key == "t")
        if conditions:
            return in_recipe(conditions)
        self._taken(key, name)
        return methods.TAKEN[key]

    def _taken(self, key: str, name: str) -> None:
        self.notes.assume(
            f"{key}: {methods.TAKEN[key]:g}, since the configuration gives none; mergekit 0.1.5 would refuse it",
            *self.at(
                "models" if key == "weight" and self.configuration.method in methods.NATIVE else key, name
            ),
        )

    def _drawn(self, name: str) -> None:
        self.notes.assume(
            "seed: 0; elements are dropped at random, and the draw of the published model cannot be reproduced",
            *self.at("method", name),
        )

    def _constant(self, piece: Piece, key: str) -> bool | None:
        """Return a parameter of the whole merge that the recipe language has as one for all tensors."""
        conditions = parameter(self.levels(piece), key, "boolean")
        if not conditions:
            return None
        if conditions[0].filter is not None or isinstance(conditions[0].value, list):
            piece.value.refuse(
                f"{key} differs from tensor to tensor, which {self.configuration.method} here cannot do"
            )
        return bool(conditions[0].value)

    def levels(self, piece: Piece, source: Source | None = None) -> list[Value | None]:
        """Return where a parameter may be given, the innermost place first."""
        own = [source.parameters] if source else []
        return [*own, piece.parameters, *self.configuration.parameters]

    def at(self, key: str = "", name: str = "") -> tuple[str, ...]:
        """Return the path of a key of the merge in the recipe."""
        inside = ("modules", self.configuration.module) if self.configuration.module else ()
        return ("models", name or self.name, *(["merge", *inside, key] if key else []))
