"""Failed calls to the Hub: which are worth a retry, and messages that explain them."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    OIDCError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, parse_ratelimit_headers  # type: ignore[attr-defined]  # its lazy exports

from herdbook.errors import GoneError, SourceError, UnreachableError, WrongAnswerError
from herdbook.hub import trusted
from herdbook.hub.transport import ContradictionError, EchoError, EndlessAnswerError, client, token
from herdbook.visible import HIDDEN, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")
WAITS_S = (1.0, 4.0, 16.0)  # between attempts; the client's own (five per request) come on top
MAX_WAIT_S = 300.0  # a longer wait that the Hub requests is an error, so that the user is informed
_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
# What the client raises. RuntimeError comes from its Xet transfer, ValueError from invalid responses.
FAILURES = (
    httpx.HTTPError,
    OSError,
    EntryNotFoundError,
    EndlessAnswerError,
    OIDCError,
    RuntimeError,
    ValueError,
)
_TOKEN = re.compile(
    r"hf_\w{6,}(?:[.-][\w-]+)*"
)  # shorter than in `visible`, since this text comes from a server


def persist(call: Callable[[], Result], what: str, repo: str) -> Result:
    """Call the Hub; retry after transient failures.

    Args:
        call: Sends the request, and returns its result.
        what: The subject of error messages.
        repo: ``owner/name``, for the advice in error messages.

    Raises:
        GoneError: If the repository answers, but has no such revision or file.
        WrongAnswerError: If a response contradicts itself or the request, and no correct one came later.
        UnreachableError: If the server does not answer, or fails.
        SourceError: If it fails for another reason; the message explains what happened and what to do.
    """
    wrong: BaseException | None = None
    for wait_s in (*WAITS_S, None):
        try:
            return call()
        except FAILURES as error:
            if is_wrong(error):
                wrong = error
            requested_s = requested_wait_s(error)
            if wait_s is None or not is_transient(error) or (requested_s or 0) > MAX_WAIT_S:
                cause = (
                    wrong or error
                )  # a server that gave a wrong answer cannot hide it by not answering any more
                raise _kind(cause)(f"{what}: {explain(cause, repo)}") from cause
            time.sleep(max(wait_s, requested_s or 0))
    raise AssertionError  # the last attempt returns or raises


def _kind(error: BaseException) -> type[SourceError]:
    if is_wrong(error):
        return WrongAnswerError
    if is_transient(error):
        return UnreachableError
    return GoneError if isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError) else SourceError


def is_wrong(error: BaseException) -> bool:
    """Return whether a wrong answer came; other failures do not show what the server has."""
    # The client reports a download whose size differs from the announced one by its message alone.
    inconsistent = type(error) is OSError and str(error).startswith("Consistency check failed")
    return inconsistent or isinstance(error, ContradictionError)


def is_transient(error: BaseException) -> bool:
    """Return whether a failure is transient."""
    if isinstance(error, EchoError):
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT_STATUS or _was_renewed(error)
    if isinstance(
        error, OfflineModeIsEnabled | LocalEntryNotFoundError | FileMetadataError | HFValidationError
    ):
        return False  # the client itself has retried those that are worth it
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


def _was_renewed(error: HfHubHTTPError) -> bool:
    """Return whether the request was refused for its token, and there is another one now: the old one had expired."""
    sent = error.response.request.headers.get("Authorization")
    now = token() if error.response.status_code == 401 and sent else None
    return now is not None and sent != f"Bearer {now}"


def requested_wait_s(error: BaseException) -> float | None:
    """Return how many seconds the Hub requests to wait before the next request; None if it does not."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    with suppress(KeyError, ValueError):  # it may also be a date, which is useless if clocks differ
        return float(headers["Retry-After"])
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else None


def explain(error: BaseException, repo: str) -> str:
    """Return a message about what happened and what to do. It never quotes a URL (it may be signed) or the token."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # the client's own text is the same for all causes
    endpoint = str(client().endpoint)
    if reason := without_token(error):
        return reason
    match error:
        case OfflineModeIsEnabled():
            return "is not in the cache, and offline mode is on. Run once with a network and without HF_HUB_OFFLINE."
        case GatedRepoError():
            return (
                f"the repository is gated. Accept its terms on {endpoint}/{repo}, log in with `hf auth login`, and try "
                "again; if its owner approves requests manually, wait for the approval."
                + server_message(error)
            )
        case EndlessAnswerError():
            return f"{endpoint} began to answer and did not finish in time. Try again later."
        case RevisionNotFoundError():
            return "the repository has no such revision. Check its spelling; it may have been deleted."
        case RemoteEntryNotFoundError():
            return "the repository has no such file at this commit"
        case DisabledRepoError():
            return "the Hub has disabled this repository." + server_message(error)
        case RepositoryNotFoundError():
            return _not_found(endpoint)
        case HfHubHTTPError():
            return _explain_status(error, endpoint)
        case HFValidationError():
            return "is not the name of a repository; expected `owner/name`"
        case FileMetadataError():
            return f"{endpoint} does not behave like a Hub. Check HF_ENDPOINT, and whether a proxy answers instead."
        case LocalEntryNotFoundError():
            return "is not in the cache, and the Hub cannot be reached"
        case httpx.TransportError() | ConnectionError() | TimeoutError():
            return (
                f"{endpoint} sent no complete response ({type(error).__name__}). Check the network and try again; "
                "files that are complete are kept."
            )
        case OSError() if error.errno is not None:
            return f"cannot be written to the cache {constants.HF_HUB_CACHE}: {error.strerror}"
        case _:
            return f"{endpoint} returned an unexpected response: {redact(str(error))}"


def without_token(error: BaseException) -> str | None:
    """Return a message about a token that could not be got for a trusted publisher; None if the error is another one."""
    return trusted.explain(error, str(constants.ENDPOINT), server_message)


def _explain_status(error: HfHubHTTPError, endpoint: str) -> str:
    status, reason = error.response.status_code, server_message(error)
    if status == 401 and token():
        return f"the Hub rejected your token. Log in with `hf auth login`, or unset HF_TOKEN.{reason}"
    if status in {401, 404}:
        return _not_found(endpoint)
    if status == 403:
        return f"access denied (HTTP 403). Check that your token may read this repository.{reason}"
    if status == 429:
        return f"rate limited by the Hub (HTTP 429). Try again later; logged-in users have a higher limit.{reason}"
    if status >= 500:
        return f"the Hub failed several times (HTTP {status}). Try again later.{reason}"
    return f"the Hub refused the request (HTTP {status}).{reason}"


def _not_found(endpoint: str) -> str:
    return (
        f"{endpoint} has no such repository, or it is private. Check the name; if it is private or gated, log in with "
        "`hf auth login`."
    )


def server_message(error: HfHubHTTPError) -> str:
    """Return the Hub's own message about a refusal as a sentence; empty if it has none."""
    return f" The Hub's message: {redact(error.server_message)}" if error.server_message else ""


def redact(text: str) -> str:
    """Return the start of a server's text on one line, without anything that looks like a token or contains one."""
    text = " ".join(without_tokens(text).split())
    return text if len(text) <= 200 else text[:200] + "..."


def without_tokens(text: str) -> str:
    """Return a server's text without anything that looks like a token or contains one: it may quote the request."""
    token()  # concealed
    return re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", _TOKEN.sub(HIDDEN, without_secrets(text)))
