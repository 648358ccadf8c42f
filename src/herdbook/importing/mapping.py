"""What names of models stand for, by the user: ``NAME=owner/name``, one by one or as lines of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.recipe.reading import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def read_mapping(given: Iterable[str]) -> dict[str, str]:
    """Return what names stand for.

    Args:
        given: Texts ``NAME=MODEL``, where a name may contain ``=``; or ``@FILE``, a file of such lines. Empty lines of a file,
            and those that begin with ``#``, are comments.

    Raises:
        RecipeError: If a text is of another form, or contradicts an earlier one.
    """
    mapping: dict[str, str] = {}
    problems = []
    for place, text in _texts(given):
        name, equals, model = (part.strip() for part in text.rpartition("="))
        name = name.rstrip("/") or name
        if not (equals and name and model):
            problems.append(f"{place}: expected NAME=owner/name, found {text!r}")
        elif mapping.setdefault(name, model) != model:
            problems.append(f"{place}: {name!r} stands for {mapping[name]!r} already")
    if problems:
        raise RecipeError(problems)
    return mapping


def _texts(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in given:
        if not text.startswith("@"):
            yield "--map", text
            continue
        file = text[1:]
        for number, content in enumerate(read_text(Path(file)).splitlines(), start=1):
            if content.strip() and not content.lstrip().startswith("#"):
                yield f"{file}: line {number}", content
