"""How a release keeps what its sources' licenses demand, and what it drops."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.licensing.terms import Rule, identifiers, terms_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Release:
    """What decides whether a release keeps an obligation.

    Args:
        license: Its license, by the Hub's identifier.
        names: The names under which people meet it: its own and its repository's.
    """

    license: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Duty:
    """An obligation of one source, and what becomes of it.

    Args:
        license: The license that demands it; empty if none is stated.
        rule: The demand.
        dropped: Why the release does not keep it; empty if it does.
    """

    license: str
    rule: Rule
    dropped: str = ""

    @property
    def demand(self) -> str:
        """What is demanded, in a few words."""
        value = self.rule.value
        return {
            "attribution": "name the authors and where it is from",
            "built-with": f"display “{value}”",
            "changes": "state that it was changed",
            "conflict": f"not together with {', '.join(self.rule.conflicts)}",
            "license-text": "hand on the license's text",
            "name-prefix": f"a name that begins with “{value}”",
            "no-derivatives": "no derived works",
            "noncommercial": "no commercial use",
            "notice": f"the notice “{value}”",
            "notices": "keep copyright and license notices",
            "same-license": "derived works keep the license"
            + (f" (or take {', '.join(self.rule.also)})" if self.rule.also else ""),
            "unknown": "not known to Herdbook",
            "use-policy": "forbid the uses that the license forbids" + (f": {value}" if value else ""),
            "user-limit": f"more than {value} need a license of their own",
        }[self.rule.obligation]


def duties(declared: str | None, release: Release) -> Iterator[Duty]:
    """Yield what a source's license demands of a release.

    Args:
        declared: The license that the source declares; it may name several, which then all hold.
        release: The release.
    """
    for identifier in identifiers(declared):
        for rule in terms_of(identifier).rules:
            yield Duty(identifier, rule, _dropped(identifier, rule, release))


def _dropped(identifier: str, rule: Rule, release: Release) -> str:
    match rule.obligation:
        case "no-derivatives":
            return f"its license, {identifier}, allows no derived works"
        case "unknown":
            state = (
                f"its license, {identifier!r}, is not known to Herdbook"
                if identifier
                else "its license is not known"
            )
            return f"{state}; a source with an unknown license may not be published"
        case "same-license" if release.license not in {identifier, *rule.also}:
            or_ = f" (or {', '.join(rule.also)})" if rule.also else ""
            return f"its license, {identifier}, must also be that of derived works{or_}; release.license is {release.license}"
        case "noncommercial" if not terms_of(release.license).demands("noncommercial"):
            return f"its license, {identifier}, forbids commercial use; release.license, {release.license}, does not"
        case "conflict" if release.license in rule.conflicts:
            return (
                f"its license, {identifier}, demands what release.license, {release.license}, does not allow"
            )
        case "name-prefix" if wrong := [name for name in release.names if not _begins(name, rule.value)]:
            return f"its license, {identifier}, demands a name that begins with {rule.value!r}; the release is called {wrong[0]!r}"
        case _:
            return ""


def _begins(name: str, prefix: str) -> bool:
    """Return whether a name begins with words, however they are joined: ``Llama-3-x`` with ``Llama 3``."""
    letters = [re.sub(r"[^a-z0-9.]", "", text.lower()) for text in (name, prefix)]
    return letters[0].startswith(letters[1])
