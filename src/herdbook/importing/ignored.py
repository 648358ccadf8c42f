"""What mergekit ignores in a dense merge is noted; what is nearly something that it reads is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.humanize import did_you_mean
from herdbook.importing import methods
from herdbook.importing.keys import DENSE_KEYS, MODEL_KEYS, SLICE_KEYS, SOURCE_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.importing.configuration import DenseConfiguration, Piece
    from herdbook.importing.value import Value
    from herdbook.recipe.mergekit_methods import Method

MERGEKIT = "mergekit"


def say_what_is_ignored(configuration: DenseConfiguration, method: Method | None, name: str) -> None:
    """Go through all keys and parameters of a dense merge.

    Args:
        configuration: The merge.
        method: Its method; None if it is unknown, so that keys are looked at alone.
        name: Its name in the recipe, under which the notes list what is left out.
    """
    _keys(configuration, ("models", name))
    if method is None:
        return
    checker = _Ignored(configuration, method, name)
    for level in configuration.parameters:
        checker.parameters(level, (*method.shared, *method.of_models))
    for piece in configuration.pieces:
        checker.piece(piece)


def _keys(configuration: DenseConfiguration, at: tuple[str, ...]) -> None:
    value = configuration.value
    modules = value.get("modules")
    for section in (value, *(modules.items() if modules is not None else ())):
        section.unknown(DENSE_KEYS, MERGEKIT, *at)
    for piece in configuration.pieces:
        ranged = piece.value.keys[-1:] != ("models",)
        if ranged:
            piece.value.unknown(SLICE_KEYS, MERGEKIT, *at)
        for source in piece.sources:
            source.value.unknown(SOURCE_KEYS if ranged else MODEL_KEYS, MERGEKIT, *at)


class _Ignored:
    def __init__(self, configuration: DenseConfiguration, method: Method, name: str) -> None:
        self.configuration, self.method, self.at = configuration, method, ("models", name)

    def piece(self, piece: Piece) -> None:
        base = piece.base or self.configuration.base
        if piece.parameters is not None:
            self.parameters(piece.parameters, (*self.method.shared, *self.method.of_models))
        for source in piece.sources:
            if source.parameters is None:
                continue
            if self.method.base != "ignored" and source.model == base:
                for entry in source.parameters.items():
                    self._left_out(
                        entry, "the base takes part as the base only, and mergekit ignores its parameters"
                    )
            else:
                self.parameters(source.parameters, self.method.of_models)

    def parameters(self, level: Value, read_here: Iterable[str]) -> None:
        known, method = tuple(read_here), self.configuration.method
        for entry in level.items():
            key = str(entry.keys[-1])
            everywhere = (*self.method.shared, *self.method.of_models)
            if key in methods.WITHOUT_EFFECT:
                self._left_out(entry, methods.WITHOUT_EFFECT[key])
            elif key in methods.UNUSED.get(method, ()):
                self._left_out(entry, f"it has no effect in {method}")
            elif key in known:
                continue
            elif key in everywhere:
                self._left_out(
                    entry, "mergekit reads it as a parameter of the whole merge only, and ignores it here"
                )
            elif key not in methods.PARAMETERS and did_you_mean(key, everywhere):
                entry.refuse(f"{method} has no parameter {key!r}{did_you_mean(key, everywhere)}")
            else:
                self._left_out(entry, f"{method} has no such parameter, and mergekit ignores it")

    def _left_out(self, entry: Value, reason: str) -> None:
        entry.notes.assume(f"{entry.key}: left out; {reason}", *self.at)
