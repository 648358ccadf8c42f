"""Calls that fail: which are worth another try, and what happened, in words for people."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, parse_ratelimit_headers  # type: ignore[attr-defined]  # its lazy exports

from herdbook.errors import GoneError, SourceError, WrongAnswerError
from herdbook.hub.transport import ContradictionError, EndlessAnswerError, client

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")
WAITS_S = (1.0, 4.0, 16.0)  # between tries; the client's own tries (five per request) come on top
MAX_WAIT_S = 300.0  # if the Hub asks for more patience than this, a person should know
_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
# What the client raises. RuntimeError comes from its Xet transfer, ValueError from answers that make no sense.
FAILURES = (httpx.HTTPError, OSError, EntryNotFoundError, EndlessAnswerError, RuntimeError, ValueError)
_TOKEN = re.compile(r"hf_\w{6,}")


def persist(call: Callable[[], Result], what: str, repo: str) -> Result:
    """Call the Hub, and again after failures that pass by themselves.

    Raises:
        GoneError: If the repository answers, but has no such revision or file.
        WrongAnswerError: If what came contradicts itself or what was asked, and no right answer came later.
        SourceError: If it does not work out for another reason; says what happened and what to do.
    """
    wrong: BaseException | None = None
    for wait_s in (*WAITS_S, None):
        try:
            return call()
        except FAILURES as error:
            if is_wrong(error):
                wrong = error
            asked_s = asked_to_wait(error)
            if wait_s is None or not is_transient(error) or (asked_s or 0) > MAX_WAIT_S:
                told = wrong or error  # who served something wrong cannot undo it by not answering any more
                raise _kind(told)(f"{what}: {explain(told, repo)}") from told
            time.sleep(max(wait_s, asked_s or 0))
    raise AssertionError  # the last round returns or raises


def _kind(error: BaseException) -> type[SourceError]:
    if is_wrong(error):
        return WrongAnswerError
    return GoneError if isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError) else SourceError


def is_wrong(error: BaseException) -> bool:
    """Return whether an answer came, but a wrong one; all other failures say nothing about what there is."""
    # Of a download that ended with another size than the one that was announced, the client says so in words only.
    inconsistent = type(error) is OSError and str(error).startswith("Consistency check failed")
    return inconsistent or isinstance(error, ContradictionError)


def is_transient(error: BaseException) -> bool:
    """Return whether a failure may pass by itself."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT_STATUS
    if isinstance(
        error, OfflineModeIsEnabled | LocalEntryNotFoundError | FileMetadataError | HFValidationError
    ):
        return False  # of these, the client has tried again by itself whatever is worth it
    if isinstance(error, OSError):
        return error.errno is None or isinstance(
            error, ConnectionError | TimeoutError
        )  # else the disk, not the net
    return isinstance(
        error,
        httpx.TimeoutException
        | httpx.NetworkError
        | httpx.RemoteProtocolError
        | RuntimeError
        | ContradictionError,
    )


def asked_to_wait(error: BaseException) -> float | None:
    """Return how many seconds the Hub asks to wait before the next request, if it says so."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    with suppress(KeyError, ValueError):  # it may also be a date, which is of no use if clocks differ
        return float(headers["Retry-After"])
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else None


def explain(error: BaseException, repo: str) -> str:
    """Return what happened and what to do, for people. Never quotes a URL (it may be signed) or the token."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # the client's own text is the same for all causes
    endpoint = str(client().endpoint)
    match error:
        case OfflineModeIsEnabled():
            return "is not on this machine, and offline mode is on. Run once with a network and without HF_HUB_OFFLINE."
        case GatedRepoError():
            return (
                f"its owner has gated it. Accept the terms on {endpoint}/{repo}, log in with `hf auth login`, and run "
                "again; where the owner grants access by hand, wait for that first." + server_says(error)
            )
        case EndlessAnswerError():
            return f"{endpoint} began to answer and never ended"
        case RevisionNotFoundError():
            return "the repository has no such revision. Is it spelled right, or was it deleted?"
        case RemoteEntryNotFoundError():
            return "the repository has no such file at this commit"
        case DisabledRepoError():
            return "the Hub has disabled this repository." + server_says(error)
        case RepositoryNotFoundError():
            return _not_found(endpoint)
        case HfHubHTTPError():
            return _explain_status(error, endpoint)
        case HFValidationError():
            return "is no name of a repository; `owner/name` is wanted"
        case FileMetadataError():
            return f"{endpoint} does not answer like a Hub. Is HF_ENDPOINT right, or does a proxy answer instead?"
        case LocalEntryNotFoundError():
            return "is not in the cache, and cannot be asked for"
        case httpx.TransportError() | ConnectionError() | TimeoutError():
            return (
                f"no whole answer from {endpoint} ({type(error).__name__}). Is there a network? Run again when there is; "
                "files that came whole are kept."
            )
        case OSError() if error.errno is not None:
            return f"cannot be put into the cache {constants.HF_HUB_CACHE}: {error.strerror}"
        case _:
            return f"{endpoint} gave an answer of no use: {redact(str(error))}"


def _explain_status(error: HfHubHTTPError, endpoint: str) -> str:
    status, says = error.response.status_code, server_says(error)
    if status == 401 and get_token():
        return (
            f"the Hub does not accept your token. Log in again with `hf auth login`, or unset HF_TOKEN.{says}"
        )
    if status in {401, 404}:
        return _not_found(endpoint)
    if status == 403:
        return f"the Hub forbids it (HTTP 403). Does your token have the right to read this repository?{says}"
    if status == 429:
        return (
            f"the Hub wants fewer requests (HTTP 429). Run again later; who is logged in may ask more.{says}"
        )
    if status >= 500:
        return f"the Hub cannot answer now (HTTP {status}), even after several tries. Run again later.{says}"
    return f"the Hub refused (HTTP {status}).{says}"


def _not_found(endpoint: str) -> str:
    return (
        f"{endpoint} knows no such repository, or it is private. Is the name right? If it is private or gated, log in "
        "with `hf auth login`."
    )


def server_says(error: HfHubHTTPError) -> str:
    """Return the Hub's own words about a refusal as a sentence, or nothing if it has none."""
    return f" The Hub says: {redact(error.server_message)}" if error.server_message else ""


def redact(text: str) -> str:
    """Return the start of a foreign text on one line, without anything that looks like a token or holds one."""
    text = " ".join(without_tokens(text).split())
    return text if len(text) <= 200 else text[:200] + "..."


def without_tokens(text: str) -> str:
    """Return a foreign text without anything that looks like a token or holds one: a server may quote what it was sent."""
    token = get_token()
    if token:
        text = text.replace(token, "<token>")
    return re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", _TOKEN.sub("<token>", text))
