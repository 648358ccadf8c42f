"""Regular expressions of an adapter's settings, tried in a process of its own: a few characters can take years to be compared."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from herdbook import apart, limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PLAIN = re.compile(r"[\w.\\^$-]*")  # neither repeats nor chooses, so that a comparison cannot take long
WHOLE = ("target_modules", "exclude_modules")  # for the whole name of a module
NAMED = ("rank_pattern", "alpha_pattern")  # for the name, or what follows one of its dots; these are keys


def named(pattern: str) -> str:
    """Return the expression for a whole name of which a pattern is for the end, as PEFT makes it (``get_pattern_key``)."""
    return rf"(.*\.)?({pattern})$"


def wrong_pattern(pattern: str) -> str | None:
    """Return why a text is not a regular expression; None if it is one."""
    if len(pattern) > limits.PATTERN_CHARACTERS:
        return f"it has {len(pattern):,} characters, over the limit of {limits.PATTERN_CHARACTERS:,}"
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return None


def endless(config: Mapping[str, Any], modules: Iterable[str]) -> str | None:
    """Return which settings cannot be compared with the names of a model's modules in time; None if all can.

    Args:
        config: The content of ``adapter_config.json``, of which the types have been checked.
        modules: The names.
    """
    found: dict[str, tuple[str, ...]] = {}
    for key in WHOLE:
        if isinstance(config.get(key), str):
            found[key] = (config[key],)
    for key in NAMED:
        found[key] = tuple(map(named, filter(lambda each: not PLAIN.fullmatch(each), config.get(key) or {})))
    patterns = {key: each for key, each in found.items() if each and not all(map(PLAIN.fullmatch, each))}
    if not patterns or _ends(
        tuple(sorted({one for each in patterns.values() for one in each})), tuple(modules)
    ):
        return None
    return (
        f"{' and '.join(patterns)}: the regular expressions take more than {limits.PATTERN_SECONDS} seconds to be compared "
        "with the model's modules; write names"
    )


@lru_cache(maxsize=64)
def _ends(patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
    try:
        apart.ask(
            "herdbook.architectures.patterns",
            json.dumps({"patterns": patterns, "names": names}),
            limits.TEMPLATE_MEMORY_BYTES,
            limits.PATTERN_SECONDS,
        )
    except apart.FailedError:
        return False
    return True


def reply(patterns: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Compare each pattern with each name, and end; or be ended."""
    for pattern in map(re.compile, patterns):
        for name in names:
            pattern.fullmatch(name)
    return {}


def main() -> None:
    """Answer the question on standard input."""
    apart.answer(reply)


if __name__ == "__main__":
    main()
