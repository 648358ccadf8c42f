"""The table of licenses: what each demands of derived works, and in which of its clauses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import TypeAdapter

# Of how each is kept, ``duties`` knows. `unknown` and `unstated` are of licenses that are in no table, or not stated at all.
Obligation = Literal[
    "attribution",
    "built-with",
    "changes",
    "conflict",
    "license-text",
    "name-prefix",
    "no-derivatives",
    "noncommercial",
    "notice",
    "notices",
    "same-license",
    "unknown",
    "use-policy",
    "user-limit",
]
OBLIGATIONS: tuple[str, ...] = get_args(Obligation)
PATH = Path(__file__).with_name("terms.json")
NO_STATEMENT = frozenset({"cc", "other", "unknown"})  # identifiers of the Hub that name no license


@dataclass(frozen=True)
class Rule:
    """One demand of a license.

    Args:
        obligation: What it demands.
        clause: The clause that it rests on.
        value: The words to be shown, the start of the name, or the address of a policy.
        also: Further licenses that a derived work may have (``same-license``).
        conflicts: Licenses that a derived work cannot have (``conflict``).
    """

    obligation: Obligation
    clause: str
    value: str = ""
    also: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Terms:
    """What a license demands.

    Args:
        rules: Its demands.
        text: The address of its text, if it has one.
    """

    rules: tuple[Rule, ...]
    text: str = ""

    def demands(self, obligation: Obligation) -> bool:
        """Return whether it demands something."""
        return any(rule.obligation == obligation for rule in self.rules)


@dataclass(frozen=True)
class _Entry:
    """An entry of the table: licenses that demand the same."""

    ids: tuple[str, ...]
    rules: tuple[Rule, ...]
    text: str = ""


def _read() -> dict[str, Terms]:
    entries = TypeAdapter(tuple[_Entry, ...]).validate_json(PATH.read_bytes())
    return {name: Terms(entry.rules, entry.text) for entry in entries for name in entry.ids}


TERMS = _read()
UNKNOWN = Terms((Rule("unknown", "an unknown license is never permissive"),))


def identifiers(license_: str | None) -> list[str]:
    """Return the identifiers in a declared license, which may name several; ``[""]`` if there is none."""
    return [part.strip().lower() for part in (license_ or "").split(",")]


def terms_of(identifier: str) -> Terms:
    """Return what a license demands, by the Hub's identifier of it; ``UNKNOWN`` if it is in no table."""
    return TERMS.get(identifier, UNKNOWN)
