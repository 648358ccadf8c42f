"""What pydantic finds wrong with a recipe, or with a JSON file of a stranger, in our words: what was found, and what is accepted there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.humanize import clipped, did_you_mean, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_LETTERS = "letters, digits, '.', '_' and '-', of which a letter or a digit is the first"
_REVISION = "owner/name, or owner/name@revision, of a repository"
_FORMS = {
    r"^[a-z0-9][a-z0-9_-]*$": "a name of small letters, digits, '_' and '-', of which a letter or a digit is the first",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": f"a name of {_LETTERS}",
    r"^[A-Za-z0-9_][\w.-]*$": "a name of letters, digits, '.', '_' and '-'",
    r"^[\w.-]+$": "a name of letters, digits, '.', '_' and '-'",
    r"^[a-z0-9][a-z0-9.-]*$": "a short name of small letters, digits, '.' and '-'",
    r"^[a-z0-9][a-z0-9.:_-]*$": "a tag of small letters, digits, '.', ':', '_' and '-'",
    r"^[a-z]{3}$": "a language's code of three small letters (ISO 639-3)",
    r"^[\w.-]+/[\w.-]+$": "owner/name of a repository",
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*$": "owner/name of a repository",
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*(@[A-Za-z0-9_./-]+)?$": _REVISION,
    r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$": _REVISION,
    r"^[\w.-]+/[\w.-]+(@[0-9a-f]{40})?$": "owner/name, or owner/name@commit, of a data set",
    r"^(?:[A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*$": "a data set's name or owner/name",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!-]+$": "package==version",
    r"\.ya?ml$": "the name of a file that ends in .yaml",
    r"\.(csv|json|jsonl|parquet)$": "the name of a file that ends in .csv, .json, .jsonl or .parquet",
    r"\.(?:png|jpe?g|webp|gif)$": "the name of a picture that ends in .png, .jpg, .webp or .gif",
    r"^\S.*$": "the name of a file",
    r"^\S.*\.gguf$": "the name of a file that ends in .gguf",
    r"^\S.*\.(gguf|dat|imatrix)$": "the name of a file that ends in .gguf, .dat or .imatrix",
    r"^\d{4}-\d{2}-\d{2}$": "a day, YYYY-MM-DD",
    r"^\d{1,6}-\d{1,6}$": "a range of layers such as 0-7",
    r"^\d+-\d+$": "a range of layers such as 0-7",
    r"^[1-9][0-9]*(KB|MB|GB)$": "a size such as 5GB: a whole number, and KB, MB or GB",
    r"^https://\S+$": "an address that begins with https://",
    r"^https?://[^\s@]+$": "an address that begins with https://",
    r"^(https://\S+|LICEN[SC]E(\.(md|txt))?)$": "an address that begins with https://, or the name of the license's file, such as LICENSE",
    r"^\d{1,10}$": "a whole number of at most ten digits, as text",
    r"^[0-9a-f]{64}$": "64 hexadecimal digits, as `herdbook key` prints them",
}
# Kinds of values, by the kinds of pydantic's errors.
_KINDS = {
    "string_type": "text",
    "string_unicode": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "none_required": "nothing",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_PLACE = re.compile(r"line (\d+) column (\d+)")
_LOOKED_AT = 10 * limits.PROBLEMS  # errors, of which several may be about one value
_SHOWN = 60  # characters of a value
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|(?<![\w'])(-?\d+|True|False)(?![\w'])")


def in_words(item: ErrorDetails) -> str | None:
    """Return what one of pydantic's errors means: what was found, and what is accepted; None if it is not of a known kind."""
    value, about, kind = item.get("input"), item.get("ctx", {}), item["type"]
    if kind in {"literal_error", "union_tag_invalid"}:
        given = about["tag"] if kind == "union_tag_invalid" else value
        names = choices(item)
        hint = did_you_mean(given, names) if isinstance(given, str) else ""
        return f"{shown(given)} is not {'one of ' * (len(names) > 1)}{_or(names)}{hint}"
    if kind == "string_pattern_mismatch" and (form := _FORMS.get(str(about["pattern"]))):
        return f"{value!r} is not {form}"
    if bound := _BOUNDS.get(kind):
        words, key = bound
        return f"must be {words} {_number(about[key])} (found {value!r})"
    if kind in {"too_short", "string_too_short"} and not _length(value):
        return "is empty" if about["min_length"] == 1 else f"is empty; {_wanted(item)}"
    if kind in {"too_short", "too_long", "string_too_short", "string_too_long"}:
        return f"{_wanted(item)} (found {_length(value)})"
    if kind == "json_invalid":
        place = _PLACE.search(str(about["error"]))
        return f"not JSON (line {place[1]}, column {place[2]})" if place else "not JSON"
    wanted = _wanted(item)
    return f"expected {wanted} (found {shown(value)})" if wanted else None


def together_in_words(items: list[ErrorDetails]) -> str | None:
    """Return what errors about one value mean that is accepted in several forms; None if one is not of a known kind."""
    wanted = list(dict.fromkeys(map(_form, items)))
    if None in wanted or not wanted:
        return None
    names = [name for item in items for name in choices(item)]
    value = items[0].get("input")
    hint = did_you_mean(value, names) if isinstance(value, str) else ""
    return f"expected {_or(list(filter(None, wanted)))} (found {shown(value)}){hint}"


def choices(item: ErrorDetails) -> list[str]:
    """Return the names of which one is accepted; empty if an error is not about a choice."""
    about = item.get("ctx", {})
    listed = about.get("expected_tags", about.get("expected", ""))
    return [text or other.lower() for text, other in _QUOTED.findall(str(listed))]


def shown(value: Any) -> str:
    """Return a value as a message quotes it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return f"a mapping with {', '.join(map(str, value))[:_SHOWN]}" if value else "an empty mapping"
        case list():
            return f"a list of {plural(len(value), 'entry', 'entries')}"
        case str() | int() | float():
            return clipped(repr(value), _SHOWN)
        case _:
            return f"what is not written in YAML, {type(value).__name__}"


def first_in_words(error: ValidationError) -> str:
    """Return the first problem that pydantic found, with its place."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where or 'its start'}: {next(_words([first]))}"


def told(error: ValidationError, content: Any) -> list[str]:
    """Return what is wrong with the content of a file, one line each, with the keys that lead to it: at most ``limits.PROBLEMS``.

    Args:
        error: What pydantic found.
        content: The content that it checked.
    """
    groups: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for item in error.errors(include_url=False)[:_LOOKED_AT]:
        groups.setdefault(_place(item, content), []).append(item)
    around = {keys[:length] for keys in groups for length in range(len(keys))}
    lines = []
    for keys, items in groups.items():
        # Of the forms that a value may have, what is wrong inside of the one that it has.
        if keys not in around or not all(item["type"].endswith("_type") for item in items):
            lines += [f"{'.'.join(keys)}: {words}" if keys else words for words in _words(items)]
    more = len(lines) - limits.PROBLEMS + max(0, error.error_count() - _LOOKED_AT)
    return lines if more <= 0 else [*lines[: limits.PROBLEMS], f"and {more:,} more problems"]


def _words(items: list[ErrorDetails]) -> Iterator[str]:
    """Yield what errors about one value mean."""
    values = [str(item["ctx"]["error"]) for item in items if item["type"] == "value_error"]
    kinds = {item["type"] for item in items}
    if values:
        yield from (line for value in values for line in value.splitlines())
    elif "missing" in kinds:
        yield "missing"
    elif "extra_forbidden" in kinds:
        yield "unknown key"
    else:
        words = together_in_words(items) if len(items) > 1 else in_words(items[0])
        yield words or " or ".join(item["msg"] for item in items)


def _place(item: ErrorDetails, content: Any) -> tuple[str, ...]:
    """Return the keys and indexes that lead to an error; between these, pydantic's location names members of unions."""
    keys: list[str] = []
    for position, part in enumerate(item["loc"], start=1):
        if isinstance(content, dict):
            exists = part in content
        else:
            exists = isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)
        if exists or (item["type"] == "missing" and position == len(item["loc"])):
            keys.append(str(part))
            content = content[part] if exists else None
    return tuple(keys)


# What a length counts, by the beginning of the kind.
_UNITS = {"too": ("entry", "entries"), "string_too": ("character", "characters")}


def _wanted(item: ErrorDetails) -> str | None:
    """Return what is accepted, as the end of a sentence; None if the kind is not known."""
    about, kind = item.get("ctx", {}), item["type"]
    if kind in {"literal_error", "union_tag_invalid"}:
        return _or(choices(item))
    if kind == "string_pattern_mismatch":
        return _FORMS.get(str(about["pattern"]))
    if bound := _BOUNDS.get(kind):
        return f"a number {bound[0]} {_number(about[bound[1]])}"
    length, _, end = kind.rpartition("_")
    if units := _UNITS.get(length):
        if end == "short":
            return f"needs at least {plural(about['min_length'], *units)}"
        return f"takes at most {plural(about['max_length'], *units)}"
    return _KINDS.get(kind)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _form(item: ErrorDetails) -> str | None:
    """Return what is accepted as one of several forms; None if the kind is not known."""
    wanted = _wanted(item)
    if wanted and item["type"] in {"too_short", "too_long"}:
        return f"a list of {wanted.removeprefix('needs ').removeprefix('takes ')}"
    return wanted


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | dict) else 0


def _or(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
