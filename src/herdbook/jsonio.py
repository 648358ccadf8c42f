"""Reading JSON from strangers: what Python's reader accepts beyond JSON, or ends at in another way, is one error."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from herdbook.limits import Limit

    # What is written as JSON; what is read has other types, once it was checked.
    Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None
    JsonObject: TypeAlias = dict[str, Json]


# How the messages of Python's reader begin, and what they mean.
_WORDS = {
    "Expecting value": "expected a value",
    "Expecting property name": "expected a key in double quotes",
    "Expecting ':'": "expected a colon",
    "Expecting ','": "expected a comma or a closing bracket",
    "Illegal trailing comma": "a comma before a closing bracket",
    "Extra data": "expected the end of the file",
    "Unterminated string": "a text without a closing quote",
    "Invalid control character": "a control character in a text",
    "Invalid \\": "an escape that JSON does not have",
    "Unexpected UTF-8 BOM": "a byte order mark, which JSON does not have",
}


class JsonError(ValueError):
    """A text is not accepted as JSON; the message contains the reason."""


def load(content: bytes | str, limit: Limit | None = None) -> Any:
    """Return the content of a JSON document.

    Args:
        content: The document; bytes are UTF-8 without a byte order mark, as transformers reads them.
        limit: The largest that is parsed.

    Raises:
        OverLimitError: If it is over the limit.
        JsonError: If it is not JSON or not UTF-8, is nested too deeply, has a key twice in one object, or contains a number that is
            not finite or has thousands of digits.
    """
    if limit is not None:
        limit.check(content.encode(errors="replace") if isinstance(content, str) else content)
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=unique)
    except JsonError:
        raise
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise JsonError(f"it is not UTF-8 (byte {error.start + 1:,})") from error
    except json.JSONDecodeError as error:
        words = next((ours for theirs, ours in _WORDS.items() if error.msg.startswith(theirs)), error.msg)
        raise JsonError(f"it is not JSON: line {error.lineno:,}, column {error.colno:,}: {words}") from error
    except ValueError as error:
        raise JsonError(f"it is not JSON: {error}") from error


def load_object(content: bytes | str, limit: Limit | None = None) -> dict[str, Any]:
    """Return the content of a JSON document that is an object, and whose texts UTF-8 can represent.

    Raises:
        OverLimitError: As ``load``.
        JsonError: As ``load``; and if it is something else.
    """
    value = load(content, limit)
    if not isinstance(value, dict):
        raise JsonError("it is not a JSON object")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise JsonError("it contains half of a character, which UTF-8 cannot represent") from error
    return value


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Of a key that is listed twice, some programs take the first value, and others the last.

    Raises:
        JsonError: If a key is listed twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        last = {name: place for place, (name, _) in enumerate(pairs)}
        twice = next(name for place, (name, _) in enumerate(pairs) if last[name] != place)
        raise JsonError(f"it has the key {twice[:40]!r} twice in one object")
    return found


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value
