"""Trusted publishers: the client exchanges the identity of a CI job for a token that may write one repository for an hour.

The client does so before a request if ``HF_OIDC_RESOURCE`` names the repository, and exchanges again shortly before the token
expires. The identity comes from GitHub, or from ``HF_OIDC_ID_TOKEN``, which cannot be renewed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from huggingface_hub.errors import HfHubHTTPError, OIDCError

from herdbook.visible import conceal

if TYPE_CHECKING:
    from collections.abc import Callable

RESOURCE = "HF_OIDC_RESOURCE"
IDENTITY = "HF_OIDC_ID_TOKEN"
_GITHUB = "ACTIONS_ID_TOKEN_REQUEST_URL"


def resource() -> str | None:
    """Return the repository for which a token is exchanged, ``owner/name``; None if tokens are not exchanged."""
    return os.environ.get(RESOURCE) or None


def conceal_identity() -> None:
    """Never let out what the environment has about the job's identity."""
    for variable in (IDENTITY, "ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
        conceal(os.environ.get(variable))


def explain(error: BaseException, endpoint: str, detail: Callable[[HfHubHTTPError], str]) -> str | None:
    """Return why there is no token for the repository, and what to do; None if the error is not about that.

    Args:
        error: The client's error.
        endpoint: The address of the Hub.
        detail: Returns a server's own message about a refusal, as a sentence.
    """
    wanted = resource()
    if isinstance(error, OIDCError):
        return (
            f"{RESOURCE} is {wanted}, but this environment gives the job no identity. On GitHub, give the job `permissions: "
            f"id-token: write`; in another CI, set {IDENTITY} to its token for {endpoint}; elsewhere, unset {RESOURCE} and log "
            "in with `hf auth login`."
        )
    if not isinstance(error, HfHubHTTPError):
        return None
    url = str(error.response.request.url)
    if _is_same(url, f"{endpoint}/oauth/token"):
        return f"{_refused(error.response.status_code, wanted, endpoint)}{detail(error)}"
    if _GITHUB in os.environ and _is_same(url, os.environ[_GITHUB]):
        return (
            f"GitHub gives the job no identity (HTTP {error.response.status_code}), so there is no token for {wanted}. Run the "
            "job again."
        )
    if error.response.status_code == 401 and wanted:
        return (
            f"the Hub rejected the token that it gave for {wanted}: it has expired, or the trusted publisher was removed. "
            f"{_again()}{detail(error)}"
        )
    return None


def _again() -> str:
    renewed = f"Set {IDENTITY} to a new identity, and run" if os.environ.get(IDENTITY) else "Run"
    return f"{renewed} the job again; files that were sent are not sent again."


def _is_same(url: str, other: str) -> bool:
    return urlsplit(url)[:3] == urlsplit(other)[:3]


def _refused(status: int, wanted: str | None, endpoint: str) -> str:
    if status >= 500 or status == 429:
        return f"{endpoint} did not exchange the job's identity for a token (HTTP {status}). Try again later."
    expired = f" The identity may also have expired. {_again()}" if os.environ.get(IDENTITY) else ""
    return (
        f"the Hub does not exchange this job's identity for a token that may write to {wanted} (HTTP {status}): no trusted "
        f"publisher of that repository matches it. The repository must exist, and {endpoint}/{wanted}/settings must list, "
        f"under Trusted Publishers, this CI with claims that equal the job's (repository, branch, workflow).{expired}"
    )
