"""Values of a configuration with their places, and what is said of them: problems, and what is assumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.humanize import closest, did_you_mean
from herdbook.visible import line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from herdbook.yamlio import Keys

SHOWN = 60  # characters of a value in a message
NEARLY = 0.7  # similarity of a key that is meant as a known one; model_type and dtype are less similar


@dataclass(frozen=True)
class Assumption:
    """Something that a configuration leaves open.

    Args:
        at: The keys that lead to the entry of the recipe that it explains.
        text: What is assumed, and why.
    """

    at: tuple[str, ...]
    text: str


@dataclass
class Notes:
    """What is said of a configuration.

    Args:
        problems: Why it cannot be imported, one line each.
        assumptions: What is assumed.
    """

    problems: list[str] = field(default_factory=list)
    assumptions: list[Assumption] = field(default_factory=list)

    def assume(self, text: str, *at: str) -> None:
        """Say what is assumed, once."""
        assumption = Assumption(at, line(text))
        if assumption not in self.assumptions:
            self.assumptions.append(assumption)

    def refuse(self, text: str) -> None:
        """Say what is wrong, once."""
        if text not in self.problems and len(self.problems) <= limits.PROBLEMS:
            self.problems.append(text)


@dataclass(frozen=True)
class Value:
    """A value of a configuration.

    Args:
        content: The value.
        keys: The keys and indexes that lead to it.
        lines: The line of each entry, by its keys.
        notes: What is said of the configuration.
    """

    content: Any
    keys: Keys
    lines: Mapping[Keys, int]
    notes: Notes

    @property
    def key(self) -> str:
        """Its keys as a text, such as ``experts.0.source_model``."""
        return ".".join(line(key)[:SHOWN] for key in self.keys)

    @property
    def place(self) -> str:
        """Its line and key."""
        keys = self.keys
        while keys not in self.lines:
            keys = keys[:-1]
        return f"line {self.lines[keys]}" + (f": {self.key}" if self.keys else "")

    @property
    def shown(self) -> str:
        """The value as a message shows it."""
        text = line(repr(self.content))
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

    def refuse(self, text: str) -> None:
        """Say what is wrong with it."""
        self.notes.refuse(f"{self.place}: {text}")

    def child(self, key: Any) -> Value:
        """Return an entry, which exists."""
        return Value(self.content[key], (*self.keys, key), self.lines, self.notes)

    def get(self, key: str) -> Value | None:
        """Return an entry of a mapping; None if it is missing or empty."""
        if not isinstance(self.content, dict) or self.content.get(key) is None:
            return None
        return self.child(key)

    def required(self, key: str) -> Value | None:
        """Return an entry of a mapping; if it is missing, say so, and return None."""
        found = self.get(key)
        if found is None:
            others = self.content if isinstance(self.content, dict) and key not in self.content else ()
            near = closest(key, others)
            self.refuse(f"`{key}` is required" + (f", found {near!r}" if near else ""))
        return found

    def entries(self, key: str) -> list[Value]:
        """Return the entries of a list; none if the list is missing. Another value is refused."""
        found = self.get(key)
        if found is None:
            return []
        if not isinstance(found.content, list):
            found.refuse(f"{found.shown} is not a list")
            return []
        return [found.child(index) for index in range(len(found.content))]

    def items(self) -> Iterator[Value]:
        """Yield the entries of a mapping."""
        for key in self.content if isinstance(self.content, dict) else ():
            yield self.child(key)

    def text(self) -> str | None:
        """Return a text; another value is refused."""
        if isinstance(self.content, str):
            return self.content
        self.refuse(f"{self.shown} is not a text; put it in quotes if it is meant as one")
        return None

    def is_mapping(self) -> bool:
        """Return whether it is a mapping; another value is refused."""
        if isinstance(self.content, dict):
            return True
        self.refuse(f"{self.shown} is not a mapping")
        return False

    def unknown(self, known: Iterable[str], program: str, *at: str) -> None:
        """Refuse keys that are nearly known ones, and say which others are left out since mergekit ignores them too."""
        names = list(known)
        for entry in self.items():
            key = entry.keys[-1]
            if key in names:
                continue
            if closest(str(key), names, least=NEARLY):
                entry.refuse(f"unknown key{did_you_mean(str(key), names)}")
            else:
                self.notes.assume(f"{entry.key}: left out, since {program} ignores it too", *at)
