"""Locks as files: where one lies beside its recipe, how it is read and checked, and how it is written."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from herdbook import __version__, jsonio, limits
from herdbook.errors import LockError
from herdbook.faults import first_in_words
from herdbook.files import write_text
from herdbook.lock.lock import Lock

if TYPE_CHECKING:
    from pathlib import Path

LINE_LENGTH = 200
VERSION = 1  # of the format


class OtherVersionError(ValueError):
    """A lock is of a version that is not read here; the message is to follow the file's name."""


def path_for(recipe_path: Path) -> Path:
    """Return the path of a recipe's lock: ``recipe.yaml`` -> ``recipe.lock.json``."""
    return recipe_path.with_suffix(".lock.json")


def lock_command(lock_path: Path) -> str:
    """Return the command that writes a lock, as a message names it: with its recipe, since another one may be configured."""
    recipes = [
        lock_path.with_name(lock_path.name.removesuffix(".lock.json") + end) for end in (".yaml", ".yml")
    ]
    named = next((f" {shlex.quote(str(path))}" for path in recipes if path.is_file()), "")
    return f"`herdbook lock{named}`"


def parse(content: bytes) -> Lock:
    """Parse and check a lock's content.

    Raises:
        OverLimitError: If it is too large.
        JsonError: If it has a key twice in one object.
        OtherVersionError: If another version of Herdbook wrote it, in another format.
        UnicodeDecodeError: If it is not UTF-8.
        ValidationError: If it is not a lock.
    """
    limits.LOCK.check(content)
    found: Any = None
    try:
        found = json.loads(content, object_pairs_hook=_few_keys)
    except (limits.OverLimitError, jsonio.JsonError):
        raise
    except (ValueError, RecursionError):
        pass  # pydantic reports it
    if isinstance(found, dict):
        _check_version(found.get("version"))
    return Lock.model_validate_json(content.decode("utf-8"))


def _check_version(version: Any) -> None:
    """Raise OtherVersionError unless a lock is of the format that is read here."""
    if type(version) is not int:
        raise OtherVersionError("does not state the version of its format")
    if version != VERSION:
        raise OtherVersionError(
            f"is of version {str(version)[:20]} of its format, and this Herdbook ({__version__}) reads version {VERSION}. Use the "
            "Herdbook that wrote it"
        )


def _few_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's version alone, if it has one.

    Raises:
        OverLimitError: If it has more keys than any in a lock: each unknown one would become an error in memory.
        JsonError: If it has a key twice.
    """
    if len(pairs) > limits.LOCK_KEYS:
        raise limits.OverLimitError(
            f"has {len(pairs):,} keys in one object, over the limit of {limits.LOCK_KEYS:,}"
        )
    return {key: value for key, value in jsonio.unique(pairs).items() if key == "version"}


def load(path: Path) -> Lock:
    """Read a lock.

    Raises:
        LockError: If it is missing or damaged.
    """
    try:
        limits.LOCK.check_size(path.stat().st_size)
        return parse(path.read_bytes())
    except limits.OverLimitError as error:
        raise LockError(f"{path}: refused: it {error}") from error
    except OtherVersionError as error:
        raise LockError(f"{path}: {error}, or run {lock_command(path)}.") from error
    except FileNotFoundError as error:
        raise LockError(f"{path}: the lock does not exist. Create it with {lock_command(path)}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except ValidationError as error:
        raise LockError(
            f"{path}: is damaged at {first_in_words(error)}. Run {lock_command(path)}."
        ) from error
    except jsonio.JsonError as error:
        raise LockError(f"{path}: is damaged: {error}. Run {lock_command(path)}.") from error


def render(lock: Lock) -> str:
    """Return the lock's text: sorted, about one tensor or file per line, so that a diff shows changes clearly."""
    return _pretty({"version": VERSION, **lock.model_dump(mode="json", exclude_defaults=True)}) + "\n"


def _pretty(value: Any, indent: str = "") -> str:
    """Render JSON; a value that fits into one line is not broken."""
    flat = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(indent) + len(flat) <= LINE_LENGTH or not isinstance(value, dict | list):
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        items = [
            f"{json.dumps(key, ensure_ascii=False)}: {_pretty(value[key], inner)}" for key in sorted(value)
        ]
    else:
        items = [_pretty(item, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closing}"


def write(lock: Lock, path: Path) -> None:
    """Write a lock atomically."""
    write_text(path, render(lock))
