"""The local Hub's HTTP: who asks, a log of requests, and faults on demand. The routes are in ``reading`` and ``writing``."""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pytest_local_hub import reading, writing
from pytest_local_hub.routing import KEEPER, ROUTES, Answer
from pytest_local_hub.store import PIECE_BYTES, Blob, Commit, Repo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_local_hub.store import Content

__all__ = ["Fault", "Handler", "LocalHub", "Request", "reading", "writing"]

Kind = Literal[
    "cut",  # the announced length, half of the body, then the connection ends
    "reset",  # the same, but the connection is torn down
    "drop",  # the connection ends before an answer
    "short",  # a consistent answer whose body lacks its second half
    "corrupt",  # the right size, one byte changed
    "whole",  # Range is ignored
    "slow",  # the right answer, after `seconds`
    "endless",  # the right beginning, then a byte now and then, for ever
    "lost",  # what is asked for is done, but the connection ends without an answer
    "cut upload",  # the connection ends when half of what is sent has come
]


@dataclass(frozen=True)
class Request:
    """A request as it was answered; ``bytes_sent`` counts the body alone."""

    method: str
    path: str
    query: str
    host: str
    range: str | None
    token: str | None
    status: int
    bytes_sent: int


@dataclass
class Fault:
    """How to misbehave, and how many more times."""

    method: str
    pattern: str
    kind: int | Kind
    times: int
    seconds: float
    headers: dict[str, str]
    message: str | None
    late: bool


class LocalHub:
    """A Hub on this machine, as a context manager.

    Large files are served from another host name than the rest, as the real Hub does it, since the client forwards
    the token to the same host only and reads a redirect to another host as the file's description.

    Attributes:
        token: Of the account ``keeper``, which may read everything, and write under its own name and those in ``orgs``.
        reader: Another token of the same account, for reading alone.
        stranger: Token of somebody who is logged in but has been given access to nothing private or gated.
        orgs: The organizations that ``keeper`` may write to.
        repos: What there is, by name; a data set's begins with ``datasets/``.
        lfs: Contents of large files by SHA-256; to be altered by tests of what is damaged.
        moved: Repositories' former names, and what they are called now.
        page_size: Entries on one page of a listing; None for no pages.
    """

    token = "hf_keeperkeeperkeeper"  # noqa: S105 - opens nothing but this
    reader = "hf_readerreaderreader"
    stranger = "hf_strangerstranger"

    def __init__(self) -> None:
        self.accounts = {
            self.token: (KEEPER, "write"),
            self.reader: (KEEPER, "read"),
            self.stranger: ("stranger", "write"),
        }
        self.orgs: set[str] = set()
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}
        self.page_size: int | None = None
        self.lfs: dict[str, Blob] = {}
        self.writing = (
            threading.Lock()
        )  # one who writes at a time, so that a commit is made whole or not at all
        self._uploads = tempfile.TemporaryDirectory(prefix="local-hub-")
        self.failures: list[BaseException] = []
        self._faults: list[Fault] = []
        self._log: list[Request] = []
        self._busy = 0
        self._idle = threading.Condition()
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._uploads.cleanup()
        if self.failures:
            raise self.failures[0]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """The endpoint, for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def content_url(self) -> str:
        """Where large files come from."""
        return f"http://localhost:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """What has been asked so far, in the order in which it was answered; waits for answers under way."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=5)
            return list(self._log)

    def forget(self) -> None:
        """Empty the log of requests."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=5)
            self._log.clear()

    def add_repo(
        self,
        name: str,
        files: Mapping[str, Content],
        *,
        repo_type: Literal["model", "dataset"] = "model",
        license: str | list[str] | None = None,  # noqa: A002 - as in a card
        base_model: str | list[str] | None = None,
        private: bool = False,
        gated: Literal["auto", "manual", False] = False,
    ) -> str:
        """Make a repository with one commit on its main branch, and return that commit's id.

        Args:
            name: ``owner/name``.
            files: Contents by name: bytes, a path, or ``OnDisk`` with a digest that need not be computed.
            repo_type: What it is a repository of.
            license: What its description says.
            base_model: Likewise.
            private: Whether it is hidden from all but ``keeper``.
            gated: Whether its files are kept from all but ``keeper``.
        """
        key = name if repo_type == "model" else f"datasets/{name}"
        card = {"license": license, "base_model": base_model}
        card = {key: value for key, value in card.items() if value is not None}
        self.repos[key] = Repo(name, card, private, gated)
        return self.commit(key, files, title="initial commit")

    def commit(
        self,
        name: str,
        files: Mapping[str, Content | Blob | None],
        branch: str = "main",
        title: str = "commit",
    ) -> str:
        """Change files of a repository (None deletes one), and return the new commit's id."""
        oid = self.repos[name].commit(files, branch, title)
        for blob in self.repos[name].commits[oid].files.values():
            if blob.lfs:
                self.lfs.setdefault(blob.sha256, blob)
        return oid

    def tag(self, name: str, tag: str, revision: str = "main") -> None:
        """Tag a revision of a repository."""
        self.repos[name].tags[tag] = self.repos[name].find(revision).oid

    def fault(
        self,
        method: str,
        pattern: str,
        kind: int | Kind,
        times: int = 1,
        *,
        seconds: float = 1.0,
        headers: dict[str, str] | None = None,
        message: str | None = None,
        late: bool = False,
    ) -> None:
        """Misbehave on the next requests of a kind. Faults are used up in the order in which they were asked for.

        Args:
            method: The request's method; ``*`` for any.
            pattern: Regular expression, searched in the request's path.
            kind: A status to answer with, or one of ``Kind``.
            times: How often.
            seconds: How long ``slow`` takes.
            headers: Of an answer with a status, e.g. ``Retry-After``.
            message: Of an answer with a status; ``{token}`` in it becomes the token that was sent.
            late: Whether what was asked for is done before the answer with a status.
        """
        self._faults.append(Fault(method, pattern, kind, times, seconds, headers or {}, message, late))

    def _take_fault(self, method: str, path: str) -> Fault | None:
        with self._idle:
            for fault in self._faults:
                if fault.times > 0 and fault.method in {method, "*"} and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: LocalHub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - http.server's signature
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):  # a client may go away whenever it likes
            self.hub.failures.append(error)


class Handler(BaseHTTPRequestHandler):
    """One request: what it asks, and its answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0
    server: _Server

    def setup(self) -> None:
        """Remember the connection, to end it with the Hub."""
        super().setup()
        self.server.hub._connections.add(self.connection)

    def finish(self) -> None:
        """Forget it."""
        self.server.hub._connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's signature
        """Say nothing: the hub keeps its own log."""

    def do_GET(self) -> None:
        """Answer a request of any method, and note it down."""
        hub = self.hub
        with hub._idle:
            hub._busy += 1
        self.status = self.bytes_sent = 0
        self.muted = False
        parts = urlsplit(self.path)
        self.route, self.query = parts.path, parse_qs(parts.query)
        self._unread = self._incoming()
        self.fault = hub._take_fault(self.command, self.route)
        try:
            self._answer()
            if not self.close_connection:
                for _ in self._unread:  # what nobody wanted stands before the next request
                    pass
        finally:
            request = Request(
                self.command,
                self.route,
                parts.query,
                self.headers.get("Host", "").partition(":")[0],
                self.headers.get("Range"),
                self.token,
                self.status,
                self.bytes_sent,
            )
            with hub._idle:
                hub._log.append(request)
                hub._busy -= 1
                hub._idle.notify_all()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server's names

    @property
    def hub(self) -> LocalHub:
        """The Hub that is asked."""
        return self.server.hub

    @property
    def token(self) -> str | None:
        """The token that came with the request."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    @property
    def is_trusted(self) -> bool:
        """Whether the asker may read what is private or gated."""
        return self.hub.accounts.get(self.token, ("", ""))[0] == KEEPER

    def _incoming(self) -> Iterator[bytes]:
        """Yield the request's body, of known length or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        remaining = int(self.headers.get("Content-Length", "0"))
        while remaining and (piece := self.rfile.read(min(PIECE_BYTES, remaining))):
            remaining -= len(piece)
            yield piece

    def body(self) -> bytes:
        """Return the request's body."""
        return b"".join(self._unread)

    def upload(self, size_bytes: int) -> Path:
        """Return a file with the request's body."""
        handle, name = tempfile.mkstemp(dir=self.hub._uploads.name)
        came = 0
        with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor
            for piece in self._unread:
                file.write(piece)
                came += len(piece)
                if self.fault and self.fault.kind == "cut upload" and came * 2 >= size_bytes:
                    raise ConnectionAbortedError
        return Path(name)

    def _answer(self) -> None:
        fault = self.fault
        try:
            if fault and fault.kind == "slow":
                self.hub._closing.wait(fault.seconds)
            if fault and fault.kind == "drop":
                self.close_connection = True
                return
            self._dispatch()
        except ConnectionAbortedError:
            self.close_connection = True
        except Answer as answer:
            self.fault = None
            self.send(answer.status, json.dumps({"error": answer.message}).encode(), answer.headers)

    def _dispatch(self) -> None:
        fault = self.fault
        if fault and (fault.late or fault.kind == "lost"):
            self.muted = True
            self._handle()
            self.muted = False
            if fault.kind == "lost":
                raise ConnectionAbortedError
        if fault and isinstance(fault.kind, int):
            message = (fault.message or "made to fail").replace("{token}", str(self.token))
            raise Answer(fault.kind, message, headers=fault.headers)
        self._handle()

    def _handle(self) -> None:
        if self.token is not None and self.token not in self.hub.accounts:
            raise Answer(401, "Invalid credentials in Authorization header")
        for old, new in self.hub.moved.items():
            if re.match(rf"(/api/models|/api/datasets|/datasets)?/{re.escape(old)}(/|\.git/|$)", self.route):
                location = self.path.replace(f"/{old}", f"/{new}", 1)
                raise Answer(307, f"Moved to {new}", headers={"Location": location})
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, handle in ROUTES:
            match = pattern.fullmatch(self.route)
            if match and wanted == method:
                handle(self, **{name: unquote(value) for name, value in match.groupdict(default="").items()})
                return
        raise Answer(404, f"the local Hub has no {self.command} {self.route}")

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send an answer, damaged as the fault in force wants it."""
        self._send(status, [body], len(body), headers or {})

    def send_json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        """Send JSON."""
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send_content(self, blob: Blob, headers: Mapping[str, str]) -> None:
        """Send a file's content, or the part of it that Range asks for."""
        size = blob.size_bytes
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if match is None or match.groups() == ("", "") or (self.fault and self.fault.kind == "whole"):
            self._send(200, blob.pieces(0, size), size, headers)
            return
        first, last = match.groups()
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            raise Answer(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        self._send(206, blob.pieces(start, stop), stop - start, {**headers, **span})

    def _send(self, status: int, pieces: Iterable[bytes], size: int, headers: Mapping[str, str]) -> None:
        if self.muted:
            return
        kind = self.fault.kind if self.fault else None
        half = size // 2
        announced = half if kind == "short" else size
        sent = half if kind in {"short", "cut", "reset", "endless"} else size
        self.status = status
        self.send_response(status)
        for name, value in {"Content-Length": str(announced), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in pieces:
            out = piece[: sent - self.bytes_sent]
            place = half - self.bytes_sent
            if kind == "corrupt" and 0 <= place < len(out):
                out = out[:place] + bytes([out[place] ^ 0xFF]) + out[place + 1 :]
            if not out:
                break
            self.wfile.write(out)
            self.bytes_sent += len(out)
        while kind == "endless" and not self.hub._closing.wait(0.2):
            self.wfile.write(b"\0")
        if kind in {"cut", "reset", "endless"}:
            self.close_connection = True
        if kind == "reset":  # lingering for no time turns the closing into a reset
            self.hub._closing.wait(0.05)  # let the first half arrive: a reset discards what is on its way
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def repo(self, kind: str, name: str) -> Repo:
        """Return a repository that the asker may know of; ``kind`` is ``datasets`` or anything else for a model."""
        repo = self.hub.repos.get(f"datasets/{name}" if kind == "datasets" else name)
        if repo is None or (repo.private and not self.is_trusted):
            if self.token is None:
                raise Answer(401, "Invalid username or password.", "RepoNotFound")
            raise Answer(404, "Repository not found", "RepoNotFound")
        return repo

    def commit(self, kind: str, name: str, revision: str) -> tuple[Repo, Commit]:
        """Return a repository and its commit at a revision."""
        repo = self.repo(kind, name)
        found = repo.find(revision or "main")
        if found is None:
            raise Answer(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repo, found

    def may_write(self, name: str) -> None:
        """Refuse an asker who may not write to ``owner/name``."""
        if self.token is None:
            raise Answer(401, "Invalid username or password.")
        account, role = self.hub.accounts[self.token]
        owners = {account, *(self.hub.orgs if account == KEEPER else ())}
        if role != "write" or name.partition("/")[0] not in owners:
            raise Answer(403, f"You don't have the rights to write to {name}")
