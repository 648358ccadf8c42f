"""Pinning tokens: a digest of each source's vocabulary, and how those that are not equal differ."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from herdbook.key import digest
from herdbook.lock.vocabulary import LockedTokenDifference, LockedTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from herdbook.sources.vocabulary import Vocabulary


def describe(vocabulary: Vocabulary | None) -> LockedTokens | None:
    """Return the pin of a vocabulary; None without one."""
    if not vocabulary:
        return None
    last = max(vocabulary, key=lambda token: (vocabulary[token], token))
    return LockedTokens(
        count=len(vocabulary), highest=vocabulary[last], last=_shown(last), sha256=digest(vocabulary)
    )


def compare(
    vocabularies: Mapping[str, Callable[[], Vocabulary]], known: Iterable[LockedTokenDifference] = ()
) -> tuple[LockedTokenDifference, ...]:
    """Return how each two of several vocabularies differ.

    Args:
        vocabularies: By the digest of each, a function that reads it. Only what must be compared is read.
        known: Differences that were found before.
    """
    found = {difference.between: difference for difference in known}
    read: dict[str, Vocabulary] = {}
    differences = []
    for between in combinations(sorted(vocabularies), 2):
        if between not in found:
            for sha256 in between:
                if sha256 not in read:
                    read[sha256] = vocabularies[sha256]()
            found[between] = difference_of(read[between[0]], read[between[1]], between)
        differences.append(found[between])
    return tuple(differences)


def difference_of(one: Vocabulary, other: Vocabulary, between: tuple[str, str]) -> LockedTokenDifference:
    """Return how two vocabularies differ."""
    ordered = sorted(one, key=lambda token: (one[token], token))
    moved = sorted(
        (token for token in one if other.get(token, one[token]) != one[token]),
        key=lambda token: (min(one[token], other[token]), token),  # from whichever side it is seen
    )
    only_one = [token for token in ordered if token not in other]
    only_other = sorted(
        (token for token in other if token not in one), key=lambda token: (other[token], token)
    )
    by_id = {other[token]: token for token in only_other}
    reused = [token for token in only_one if one[token] in by_id]
    return LockedTokenDifference(
        between=between,
        moved=len(moved),
        moved_token=(_shown(moved[0]), one[moved[0]], other[moved[0]]) if moved else None,
        reused=len(reused),
        reused_id=(one[reused[0]], _shown(reused[0]), _shown(by_id[one[reused[0]]])) if reused else None,
        alone=(len(only_one), len(only_other)),
        alone_tokens=(
            _shown(only_one[0]) if only_one else "",
            _shown(only_other[0]) if only_other else "",
        ),
    )


def _shown(token: str) -> str:
    """Return a token as the lock can store it: JSON may contain half of a character, UTF-8 may not."""
    return token.encode("utf-8", "backslashreplace").decode("utf-8")
