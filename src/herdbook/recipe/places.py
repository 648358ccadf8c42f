"""The lines of a recipe that problems are at, by the keys that messages begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import yamlio
from herdbook.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Keys = tuple[Any, ...]


def lines_of(text: str) -> dict[Keys, int]:
    """Return the line of each entry of a recipe, by the keys and indexes that lead to it; empty if it is not YAML."""
    try:
        found = yamlio.documents(text)
    except yamlio.YamlError:
        return {}
    return dict(found[0].lines) if found else {}


def keys_of(problem: str, content: Any) -> Keys:
    """Return the keys at the beginning of a message, as far as they exist: ``models.mix.merge.t: ...``.

    A key may contain a dot, such as that of a token, so the longest one that exists is taken.
    """
    keys: list[Any] = []
    rest = problem
    while True:
        entries: Iterable[tuple[Any, Any]] = content.items() if isinstance(content, dict) else ()
        entries = enumerate(content) if isinstance(content, list) else entries
        fitting = [(str(key), key, value) for key, value in entries if _starts(rest, str(key))]
        if not fitting:
            return tuple(keys)
        name, key, content = max(fitting, key=lambda entry: len(entry[0]))
        keys.append(key)
        if rest[len(name)] == ":":
            return tuple(keys)
        rest = rest[len(name) + 1 :]


def _starts(text: str, key: str) -> bool:
    return text.startswith(key) and text[len(key) : len(key) + 1] in {".", ":"}


def in_order(
    problems: list[tuple[str, Keys]], lines: Mapping[Keys, int]
) -> tuple[list[str], list[int | None]]:
    """Return problems by their lines, and these lines; those of which none is known are last, in their order."""
    placed = [(text, _line(keys, lines)) for text, keys in problems]
    placed.sort(key=lambda one: (one[1] is None, one[1] or 0))
    return [text for text, _ in placed], [line for _, line in placed]


def _line(keys: Keys, lines: Mapping[Keys, int]) -> int | None:
    """Return the line of an entry, or of the nearest one around it that is written; None for the whole recipe."""
    return next((lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in lines), None)


def located(problems: list[str], path: Path) -> RecipeError:
    """Return the error for problems that were found after a recipe was read, with their lines."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yamlio.load(text)
    except (OSError, ValueError):
        return RecipeError(problems, str(path))
    found, at = in_order([(one, keys_of(one, content)) for one in problems], lines_of(text))
    return RecipeError(found, str(path), at)
