"""Package URLs of commits on the Hub: ``pkg:huggingface/owner/name@commit`` (purl-spec, type ``huggingface``)."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

PREFIX = "pkg:huggingface/"
PUBLIC_HUB = "https://huggingface.co"
_COMMIT = re.compile(
    rf"{PREFIX}(?P<repo>[\w.%-]+/[\w.%-]+)@(?P<commit>[0-9a-f]{{40}})(?:\?repository_url=(?P<hub>\S+))?",
    re.ASCII,
)


class HubCommit(NamedTuple):
    """A commit of a repository.

    Attributes:
        repo: ``owner/name``.
        commit: The commit, 40 hexadecimal digits.
        endpoint: The Hub's address.
    """

    repo: str
    commit: str
    endpoint: str = PUBLIC_HUB

    def __str__(self) -> str:
        """Return its package URL; the Hub's address is part of it unless it is the public Hub."""
        elsewhere = "" if self.endpoint == PUBLIC_HUB else f"?repository_url={quote(self.endpoint, safe=':')}"
        return f"{PREFIX}{quote(self.repo)}@{self.commit}{elsewhere}"


def parse(uri: str) -> HubCommit | None:
    """Return the commit that a package URL names; None if the URI is anything else."""
    match = _COMMIT.fullmatch(uri)
    if match is None:
        return None
    return HubCommit(unquote(match["repo"]), match["commit"], unquote(match["hub"] or PUBLIC_HUB))
