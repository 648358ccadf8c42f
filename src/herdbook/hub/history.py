"""The history of a repository: which branches, tags and proposals lead to a commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from herdbook import jsonio, limits
from herdbook.hub.failure import persist
from herdbook.hub.repository import COMMIT
from herdbook.hub.transport import client, read_page

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PAGES = 100  # of one history; a model's has a few dozen commits
PROPOSAL = "refs/pr/"  # anyone may push to it, so its commits are the owner's only once they are merged


@dataclass(frozen=True)
class Refs:
    """What leads to commits in a repository: full names of references, each with the commit that it leads to.

    Args:
        own: Branches and tags, which only people with write access can move.
        proposals: Pull requests, open or closed.
    """

    own: dict[str, str]
    proposals: dict[str, str]


def read_refs(repo: str) -> Refs:
    """Return the references of a repository, with one request.

    Raises:
        SourceError: If it cannot be read.
    """

    def request() -> Refs:
        content, _ = read_page(f"{client().endpoint}/api/models/{repo}/refs?include_prs=1")
        groups = jsonio.load(content, limits.ANSWER)
        try:
            return Refs(
                _listed([*groups["branches"], *groups.get("tags", [])]),
                _listed(groups.get("pullRequests") or []),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("the response does not describe references") from error

    return persist(request, f"hub: {repo}: references", repo)


def leads_to(repo: str, ref: str, commit: str) -> bool:
    """Return whether the history of a reference contains a commit.

    Raises:
        SourceError: If it cannot be read, or has more pages than any model's.
    """
    return any(commit == each for each in history(repo, ref))


def history(repo: str, ref: str) -> Iterator[str]:
    """Yield the commits of a reference's history, newest first; pages are requested as they are needed.

    Raises:
        SourceError: See ``leads_to``.
    """
    url: str | None = f"{client().endpoint}/api/models/{repo}/commits/{quote(ref, safe='')}"
    what = f"hub: {repo}@{ref}: history"
    for _ in range(MAX_PAGES):
        commits, url = persist(lambda url=url: _page(str(url)), what, repo)  # type: ignore[misc]
        yield from commits
        if url is None:
            return
    persist(_too_long, what, repo)


def _page(url: str) -> tuple[list[str], str | None]:
    content, following = read_page(url)
    try:
        return [_commit(entry["id"]) for entry in jsonio.load(content, limits.ANSWER)], following
    except (KeyError, TypeError) as error:
        raise ValueError("the response does not describe a history") from error


def _too_long() -> None:
    raise ValueError(f"the history has more than {MAX_PAGES} pages")


def _listed(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {str(entry["ref"]): _commit(entry["targetCommit"]) for entry in entries}


def _commit(text: Any) -> str:
    if not isinstance(text, str) or not COMMIT.fullmatch(text):
        raise ValueError("the response names an invalid commit")
    return text
