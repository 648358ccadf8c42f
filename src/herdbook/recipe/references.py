"""Where a model's entry names other models: the key or the item of a list that has the name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from herdbook.recipe.section import NAME_PATTERN
from herdbook.recipe.tokenizer import BASE, UNION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from herdbook.recipe.section import Section

    Keys = tuple[Any, ...]

# The keys of models that name other models. What is below the other names, names none.
_NAMING = {"laser", "on", "base", "other", "model", "tokenizer", "source"}
_OTHER_NAMES = {"search", "parameters", "layers", "adapter"}


def named_in(value: Any, keys: Keys = (), key: Any = None) -> Iterator[tuple[Keys, str]]:
    """Yield the names of models in an entry as it is written, whatever is wrong with its form.

    Args:
        value: The entry, or a part of it.
        keys: The keys and indexes that lead to it.
        key: The key that its names are at; in a list, the one that each item would have.

    Yields:
        Each name, after the keys and indexes that lead to it.
    """
    if isinstance(value, str):
        if (
            key in _NAMING
            and re.fullmatch(NAME_PATTERN, value)
            and (key != "source" or value not in {UNION, BASE})
        ):
            yield keys, value
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from named_in(inner, (*keys, index), "model" if key == "models" else None)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in _OTHER_NAMES:
                yield from named_in(inner, (*keys, name), name)


def places_of(names: Collection[str], where: str, model: Section) -> list[tuple[str, str]]:
    """Return where a model's entry names the models that it is made from.

    Args:
        names: Their names.
        where: The key of the entry.
        model: The entry.

    Returns:
        Each place, as keys with dots between them, with the name there.
    """
    written, known = model.model_dump(by_alias=True, exclude_unset=True), set(names)
    places = [(".".join([where, *map(str, keys)]), name) for keys, name in named_in(written) if name in known]
    # Such as in the entry of a token that is called like a key whose entry names no models.
    left = known - {name for _, name in places}
    return [*places, *((where, name) for name in dict.fromkeys(names) if name in left)]
