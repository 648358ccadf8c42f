"""The forms of texts and numbers in a recipe, in words, for the messages about those that do not have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    r"^[0-9a-f]{64}$": "64 hexadecimal digits, as `herdbook key` prints them",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def in_words(item: ErrorDetails) -> str | None:
    """Return what one of pydantic's errors about a text's form or a number's range means; None for other errors."""
    value, about = item.get("input"), item.get("ctx", {})
    if item["type"] == "string_pattern_mismatch" and (form := _FORMS.get(str(about["pattern"]))):
        return f"{value!r} is not {form}"
    if bound := _BOUNDS.get(item["type"]):
        words, key = bound
        return f"must be {words} {about[key]:g} (found {value!r})"
    return None
