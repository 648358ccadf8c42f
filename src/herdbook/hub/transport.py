"""One request and its answer, bounded in size and time whatever the server does."""

from __future__ import annotations

from contextvars import copy_context
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import HfApi, constants, get_session, get_token, hf_raise_for_status
from huggingface_hub.errors import OIDCError
from huggingface_hub.utils import build_hf_headers, httpx  # type: ignore[attr-defined]  # its lazy exports

from herdbook import __version__, limits
from herdbook.errors import SourceError
from herdbook.hub.trusted import conceal_identity
from herdbook.traffic import TRAFFIC
from herdbook.visible import conceal

if TYPE_CHECKING:
    from collections.abc import Callable

# Time limit for a whole answer, plus time for its bytes at the slowest rate: a server that never ends must not block us.
ANSWER_S = 60.0
SLOWEST_BYTES_S = 50_000
MAX_REFUSAL_BYTES = 1 << 16
MAX_SIZE_DIGITS = 19
MAX_SKIPPED_BYTES = 1 << 24  # that are read and discarded if a server does not support ranges
Result = TypeVar("Result")


class EndlessAnswerError(Exception):
    """An answer took longer than any honest one does."""


class ContradictionError(ValueError):
    """A complete answer came, but it contradicts itself or the request."""


class EchoError(ContradictionError):
    """An answer contains the token of the request. It is not requested a second time, since the token would be sent again."""


def token() -> str | None:
    """Return the token of this machine's requests, and never let it out from now on; None without one.

    A token that has to be exchanged and cannot be is none, too: the next request fails for the same reason, and explains it.

    Raises:
        SourceError: If the response to an exchange is not that of a Hub.
    """
    conceal_identity()
    try:
        found = get_token()
    except (OIDCError, httpx.HTTPError, OSError, ValueError):
        return None
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{constants.ENDPOINT}: the response to the exchange for a token is not that of a Hub"
        ) from error
    conceal(found)
    return found


def client() -> HfApi:
    """Return the client, for the endpoint that is configured now. Clients are created here and nowhere else."""
    token()  # concealed before a server receives it and can send it back
    return HfApi(endpoint=constants.ENDPOINT, library_name="herdbook", library_version=__version__)


def read_range(url: str, start: int, stop: int) -> tuple[bytes, int]:
    """Return the bytes of a file from ``start`` up to ``stop`` or its end, and the size of the whole file.

    A server that does not support ranges answers with the whole file, which is read up to ``stop``.

    Raises:
        EndlessAnswerError: If the answer takes too long.
        ContradictionError: If a complete answer came that cannot be right.
        ValueError: If the server does not support ranges, and ``start`` is too far from the file's beginning.
    """
    try:
        return _within(ANSWER_S + (stop - start) / SLOWEST_BYTES_S, lambda: _read_range(url, start, stop))
    except httpx.RemoteProtocolError as error:
        if _breaks_protocol(error):
            raise ContradictionError(f"the answer is not HTTP: {error}") from error
        raise


def _breaks_protocol(error: BaseException) -> bool:
    """Return whether the answer breaks the protocol; else the connection ended too early."""
    # The error of the protocol's parser, which has nothing to parse if no answer came.
    reason = error.__cause__ and error.__cause__.__context__
    return reason is not None and not str(reason).startswith("peer closed connection")


def _read_range(url: str, start: int, stop: int) -> tuple[bytes, int]:
    with _open(url, {"Range": f"bytes={start}-{stop - 1}"}) as response:
        span = response.headers.get("Content-Range", "")
        if response.status_code == 416:
            return b"", _size(span.removeprefix("bytes */"))
        _raise_for_status(response)
        if response.status_code == 206:
            size_bytes, skipped, surplus = _size(span.rpartition("/")[2]), 0, 1
            if span != f"bytes {start}-{min(stop, size_bytes) - 1}/{size_bytes}":
                raise ContradictionError(
                    f"bytes {start} to {stop - 1} were requested, but the answer has {span[:80]!r}"
                )
        elif start > MAX_SKIPPED_BYTES or "Content-Length" not in response.headers:
            raise ValueError("the server does not support range requests")
        else:
            size_bytes, skipped, surplus = _size(response.headers["Content-Length"]), start, 0
        expected = max(min(stop, size_bytes) - start, 0) + skipped
        data = _read_body(
            response, expected + surplus
        )  # one more byte than the range, to detect a longer body
        has_end = not response.headers.keys().isdisjoint({"content-length", "transfer-encoding"})
    if len(data) < expected or (surplus and len(data) > expected):
        problem = (
            f"bytes {start} to {stop - 1} were requested, but {len(data)} bytes arrived instead of {expected}"
        )
        raise ContradictionError(problem) if has_end else OSError(problem)
    refuse_echo(data)
    return bytes(data[skipped:expected]), size_bytes


def _size(text: str) -> int:
    """Return a file's size from a header."""
    if not (text.isascii() and text.isdigit()) or len(text) > MAX_SIZE_DIGITS:
        raise ContradictionError(f"the answer has {text[:80]!r} as the file's size")
    return int(text)


def read_whole(url: str) -> bytes:
    """Return a whole answer. Raises as ``read_page``."""
    return read_page(url)[0]


def read_page(url: str) -> tuple[bytes, str | None]:
    """Return a whole answer, and the address of the page that follows it, if it is a page of a listing.

    Raises:
        EndlessAnswerError: If it takes too long.
        ValueError: If it is larger than any honest one, or the next page is on another server, to which no request is sent.
    """
    return _within(ANSWER_S, lambda: _read_page(url))


def _read_page(url: str) -> tuple[bytes, str | None]:
    with _open(url, {}) as response:
        _raise_for_status(response)
        data = _read_body(response, limits.ANSWER.size_bytes + 1)
        following = response.links.get("next", {}).get("url")
    if len(data) > limits.ANSWER.size_bytes:
        raise ValueError(f"the answer has more than {limits.ANSWER.size_bytes} bytes")
    if following is not None and not following.startswith(f"{constants.ENDPOINT}/api/"):
        raise ValueError("the listing continues on another server")  # which must not see the token
    refuse_echo(data)
    return bytes(data), following


def read_public(url: str, limit_bytes: int) -> bytes:
    """Return a whole answer of any server, which sees no token.

    Raises:
        EndlessAnswerError: If it takes too long.
        ValueError: If it is longer than the limit.
    """

    def read() -> bytes:
        headers = build_hf_headers(token=False, library_name="herdbook", library_version=__version__)
        with _request(url, headers) as response:
            _raise_for_status(response)
            data = _read_body(response, limit_bytes + 1)
        if len(data) > limit_bytes:
            raise ValueError(f"the answer has more than {limit_bytes} bytes")
        return bytes(data)

    return _within(ANSWER_S + limit_bytes / SLOWEST_BYTES_S, read)


def refuse_echo(data: bytes | bytearray) -> None:
    """Refuse what a server sent if it is, or contains, the token that it got: it would come into locks and releases.

    Raises:
        EchoError: If it does.
    """
    sent = token()
    if sent and sent.encode() in data:
        raise EchoError("the answer contains the token of the request, which no honest server sends back")


def _open(url: str, headers: dict[str, str]) -> Any:
    """Send a request; the answer's body is not read yet, and is not compressed."""
    token()
    return _request(
        url, {**build_hf_headers(library_name="herdbook", library_version=__version__), **headers}
    )


def _request(url: str, headers: dict[str, str]) -> Any:
    TRAFFIC.count(0, requests=1)
    return get_session().stream(
        "GET",
        url,
        headers={**headers, "Accept-Encoding": "identity"},
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )


def _read_body(response: Any, limit: int) -> bytearray:
    """Return a body's first ``limit`` bytes, or all if there are fewer; a few more may follow."""
    data = bytearray()
    if limit:
        for piece in response.iter_raw(1 << 16):
            data += piece
            TRAFFIC.count(len(piece))
            if len(data) >= limit:
                break
    return data


def _raise_for_status(response: Any) -> None:
    """Raise the client's error for a refusal, whose body it would read without a limit."""
    if response.is_error:
        body = _read_body(response, MAX_REFUSAL_BYTES)
        kept = {
            name: value
            for name, value in response.headers.items()
            if name.lower() not in {"content-encoding", "content-length", "transfer-encoding"}
        }
        response = httpx.Response(
            response.status_code,
            headers=kept,
            content=bytes(body[:MAX_REFUSAL_BYTES]),
            request=response.request,
        )
    hf_raise_for_status(response)


def _within(limit_s: float, call: Callable[[], Result]) -> Result:
    """Call a function with a time limit. After that its thread may live until the process ends; it blocks no other thread.

    The client's own timeout applies to each piece, so a server that sends a byte now and then would never end.

    Raises:
        EndlessAnswerError: If it took too long.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = Thread(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise EndlessAnswerError
    return results[0]
