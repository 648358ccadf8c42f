"""Handle a request: its content, its account, its response. The functions that answer are in ``reading`` and ``writing``."""

from __future__ import annotations

import json
import re
import socket
import struct
import tempfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from pytest_local_hub.faults import UNFINISHED
from pytest_local_hub.log import Request
from pytest_local_hub.routing import Answer, find
from pytest_local_hub.store import KEEPER, PIECE_BYTES, repo_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_local_hub.faults import Fault
    from pytest_local_hub.server import Server
    from pytest_local_hub.store import Blob, Commit, Repo, Store


class Handler(BaseHTTPRequestHandler):
    """One connection: its requests, one after the other.

    Attributes:
        route: The requested path.
        query: The parameters of the request.
        fault: The fault of this request, if any.
        status: The status of the response; 0 before it is sent.
        bytes_sent: The number of bytes sent of the response's body.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0
    server: Server

    def setup(self) -> None:
        """Register the connection with the server."""
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        """Remove the connection from the server's list."""
        self.server.closed(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's signature
        """Print nothing: the server keeps its own log."""

    def do_GET(self) -> None:
        """Answer a request of any method, and log it."""
        self.status = self.bytes_sent = 0
        self._muted = False
        parts = urlsplit(self.path)
        self.route, self.query = parts.path, parse_qs(parts.query)
        self._unread = self._incoming()
        self.fault = self.server.faults.take(self.command, self.route)
        with self.server.log.answering():
            try:
                self._answer()
                if not self.close_connection:
                    for _ in self._unread:  # the unread body precedes the next request
                        pass
            finally:
                self.server.log.add(
                    Request(
                        self.command,
                        self.route,
                        parts.query,
                        self.headers.get("Host", "").partition(":")[0],
                        self.headers.get("Range"),
                        self.token,
                        self.status,
                        self.bytes_sent,
                    )
                )

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server's names

    # --- the request and its account

    @property
    def store(self) -> Store:
        """The repositories that are served."""
        return self.server.store

    @property
    def token(self) -> str | None:
        """The token that came with the request."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    @property
    def account(self) -> str:
        """The account of the request; empty if it has no known token."""
        return self.store.accounts.get(self.token or "", ("", ""))[0]

    def may_see(self, name: str) -> bool:
        """Return whether the account may read the private or gated repository ``owner/name``."""
        return self.account == KEEPER or self.store.scopes.get(self.token or "") == name

    def may_write(self, name: str) -> None:
        """Refuse the request if its account may not write to ``owner/name``."""
        if self.token is None:
            raise Answer(401, "Invalid username or password.")
        scope = self.store.scopes.get(self.token)
        if scope is not None and scope != name:
            raise Answer(403, f"This token may not write to {name}")
        account, role = self.store.accounts[self.token]
        owners = {account, *(self.store.orgs if account == KEEPER else ())}
        if role != "write" or (scope is None and name.partition("/")[0] not in owners):
            raise Answer(403, f"You don't have the rights to write to {name}")

    def repo(self, kind: str, name: str) -> Repo:
        """Return a repository that is visible to the account; ``kind`` is ``datasets``, or anything else for a model."""
        repo = self.store.repos.get(repo_key(kind, name))
        if repo is None or (repo.private and not self.may_see(name)):
            if self.token is None:
                raise Answer(401, "Invalid username or password.", "RepoNotFound")
            raise Answer(404, "Repository not found", "RepoNotFound")
        return repo

    def commit(self, kind: str, name: str, revision: str) -> tuple[Repo, Commit]:
        """Return a repository and its commit at a revision."""
        repo = self.repo(kind, name)
        commit_ = repo.find(revision or "main")
        if commit_ is None:
            raise Answer(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repo, commit_

    def body(self) -> bytes:
        """Return the request's body."""
        return b"".join(self._unread)

    def upload(self, size_bytes: int) -> Path:
        """Return a file with the request's body."""
        handle, name = tempfile.mkstemp(dir=self.server.uploads)
        received = 0
        with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor
            for piece in self._unread:
                file.write(piece)
                received += len(piece)
                if self.fault and self.fault.kind == "cut upload" and received * 2 >= size_bytes:
                    raise ConnectionAbortedError
        return Path(name)

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

    # --- selecting the response

    def _answer(self) -> None:
        try:
            if self.fault:
                self._misbehave(self.fault)
            self._dispatch()
        except ConnectionAbortedError:
            self.close_connection = True
        except Answer as answer:
            self.fault = None
            self.send(answer.status, json.dumps(answer.body).encode(), answer.headers)

    def _misbehave(self, fault: Fault) -> None:
        """Carry out a fault before or in place of the response; most faults change the response itself."""
        if fault.kind == "slow":
            self.server.closing.wait(fault.seconds)
        if fault.is_after_the_deed:
            self._muted = True
            with suppress(Answer):
                self._dispatch()
            self._muted = False
        if fault.kind == "garbage":
            self.wfile.write(b"\0this is not HTTP\r\n\r\n")
        if fault.kind in {"drop", "lost", "garbage"}:
            raise ConnectionAbortedError
        if isinstance(fault.kind, int):
            message = (fault.message or "made to fail").replace("{token}", str(self.token))
            headers = {name: value for name, value in fault.headers.items() if value is not None}
            raise Answer(fault.kind, message, headers=headers)

    def _dispatch(self) -> None:
        if self.token is not None and self.token not in self.store.accounts:
            raise Answer(401, "Invalid credentials in Authorization header")
        for old, new in self.store.moved.items():
            if re.match(rf"(/api/models|/api/datasets|/datasets)?/{re.escape(old)}(/|\.git/|$)", self.route):
                location = self.path.replace(f"/{old}", f"/{new}", 1)
                raise Answer(307, f"Moved to {new}", headers={"Location": location})
        match = find(self.server.routes, self.command, self.route)
        if match is None:
            raise Answer(404, f"the local Hub has no {self.command} {self.route}")
        answer, arguments = match
        answer(self, **arguments)

    # --- sending it

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a response, damaged by the fault of this request."""
        self._send(status, [body], len(body), headers or {})

    def send_json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        """Send JSON."""
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send_content(self, blob: Blob, headers: Mapping[str, str]) -> None:
        """Send a file's content, or the requested range."""
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
        if self._muted:
            return
        fault = self.fault
        self.status = status
        self.send_response(status)
        headers = fault.altered(headers, size) if fault else {"Content-Length": str(size), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in fault.damaged(pieces, size) if fault else pieces:
            self.wfile.write(piece)
            self.bytes_sent += len(piece)
        if fault and fault.kind in UNFINISHED:
            self._break_off(fault.kind)

    def _break_off(self, kind: int | str) -> None:
        """End the connection in the middle of a response, or never."""
        self.close_connection = True
        while kind == "endless" and not self.server.closing.wait(0.2):
            self.wfile.write(b"\0")
        if kind == "reset":  # with a linger time of zero, closing sends a reset
            self.server.closing.wait(0.05)  # let the first half arrive: a reset discards data in transit
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
