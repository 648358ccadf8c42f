"""Reading JSON from strangers: what Python's reader accepts beyond JSON, or ends at in another way, is one error."""

from __future__ import annotations

import json
import math
from typing import Any


class JsonError(ValueError):
    """A text is not accepted as JSON; the message contains the reason."""


def load(content: bytes | str) -> Any:
    """Return the content of a JSON document.

    Raises:
        JsonError: If it is not JSON or not UTF-8, is nested too deeply, or contains a number that is not finite or has thousands
            of digits.
    """
    try:
        return json.loads(content, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error
    except ValueError as error:
        raise JsonError(f"it is not JSON: {error}") from error


def load_object(content: bytes | str) -> dict[str, Any]:
    """Return the content of a JSON document that is an object, and whose texts UTF-8 can represent.

    Raises:
        JsonError: As ``load``; and if it is something else.
    """
    value = load(content)
    if not isinstance(value, dict):
        raise JsonError("it is not a JSON object")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise JsonError("it contains half of a character, which UTF-8 cannot represent") from error
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value
