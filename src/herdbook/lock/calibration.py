"""Pinning calibration text, none of which an evaluation of the same recipe may read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.errors import RecipeError
from herdbook.lock.asked import request
from herdbook.lock.file import LockedCalibration
from herdbook.lock.local import pin_local
from herdbook.lock.texts import read_texts
from herdbook.recipe.whole import made_of_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from herdbook.lock.evaluation import LockedTask
    from herdbook.recipe import Calibration, Recipe

LONG = 100  # characters; shorter documents are not searched for inside others


def pin_calibration(name: str, text: Calibration, beside: Path) -> LockedCalibration:
    """Pin calibration text: its files, in which each line must contain a text."""
    where = f"calibration.{name}"
    data = tuple(pin_local(beside, file, where) for file in text.data)
    for file in text.data:
        read_texts(beside / file, text.field, where)
    return LockedCalibration(asked=request(text), data=data)


def refuse_overlap(
    recipe: Recipe, beside: Path, tasks: Mapping[str, LockedTask], report: Callable[[str], None]
) -> None:
    """Refuse calibration text that an evaluation also reads, even from another file or among other lines.

    Two documents are the same if they differ in white space and case alone. A document inside another counts, too.
    """
    for name, text in recipe.calibration.items():
        files = {
            _essence(document): file
            for file in text.data
            for document in read_texts(beside / file, text.field, f"calibration.{name}")
        }
        for task, locked in tasks.items():
            for data in locked.data:
                path = (beside / task).parent / data.name
                evaluated = {_essence(value) for value in _strings(path, report)}
                all_evaluated = "\n".join(evaluated)
                shared = [
                    file
                    for essence, file in files.items()
                    if essence in evaluated or _within(essence, all_evaluated)
                ]
                if shared:
                    raise RecipeError(
                        f"calibration.{name}: {len(shared)} of its {len(files)} documents ({shared[0]}) are also read by "
                        f"evaluate.tasks {task} ({data.name}). A model must not be measured on text that it was tuned on: "
                        "use another split."
                    )


def refuse_used(recipe: Recipe, beside: Path) -> None:
    """Refuse texts for losses of which a document is also in a text that models are made of, whatever their files are called.

    Raises:
        RecipeError: If one is; both texts are named.
    """
    loss = recipe.quantize.loss if recipe.quantize else None
    for name in loss.texts if loss else ():
        held = _documents(name, recipe, beside)
        for other, use in made_of_texts(recipe).items():
            if shared := held & _documents(other, recipe, beside):
                raise RecipeError(
                    f"quantize.loss.texts: {len(shared)} of the {len(held)} documents of {name!r} are also in {other!r}, of which "
                    f"{use} is made. A file must not be measured on text that it was made with: use another split."
                )


def _documents(name: str, recipe: Recipe, beside: Path) -> set[str]:
    text = recipe.calibration[name]
    return {
        _essence(document)
        for file in text.data
        for document in read_texts(beside / file, text.field, f"calibration.{name}")
    }


def _strings(path: Path, report: Callable[[str], None]) -> Iterator[str]:
    """Yield every text in a file: all strings of JSON or JSON Lines, or else the whole file as one text."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        report(f"warning: {path} is not UTF-8 text, so it was not compared with the calibration text")
        return
    try:
        values = _values(text)
    except limits.OverLimitError as error:
        raise RecipeError(f"evaluate.tasks: {path}: refused: it {error}") from error
    while values:
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            values += value.values() if isinstance(value, dict) else value


def _values(text: str) -> list[Any]:
    """Return the values of JSON Lines or JSON; or else the text itself."""
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        return [jsonio.load(line, limits.DOCUMENT) for line in lines]
    except jsonio.JsonError:
        pass
    try:
        return [jsonio.load(text, limits.SAMPLES)]
    except jsonio.JsonError:
        return [text]


def _within(essence: str, text: str) -> bool:
    """Return whether a longer text contains a document; short documents, which may occur anywhere, do not count."""
    return len(essence) >= LONG and essence in text


def _essence(text: str) -> str:
    return " ".join(text.split()).casefold()
