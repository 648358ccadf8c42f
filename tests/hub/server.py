"""The local Hub's HTTP: the routes that `huggingface_hub` reads, a log of requests, and faults on demand."""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar, Literal, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hub.store import Blob, Commit, Repo

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE_BYTES = 1 << 16
DATE = "2024-01-01T00:00:00.000Z"

Kind = Literal[
    "cut",  # the announced length, half of the body, then the connection ends
    "reset",  # the same, but the connection is torn down
    "drop",  # the connection ends before an answer
    "short",  # a consistent answer whose body lacks its second half
    "corrupt",  # the right size, one byte changed
    "whole",  # Range is ignored
    "slow",  # the right answer, after `seconds`
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


class LocalHub:
    """A Hub on this machine, as a context manager.

    Large files are served from another host name than the rest, as the real Hub does it, since the client forwards
    the token to the same host only and reads a redirect to another host as the file's description.

    Attributes:
        token: Of somebody who may read everything.
        stranger: Token of somebody who is logged in but has been given access to nothing private or gated.
    """

    token = "hf_keeperkeeperkeeper"  # noqa: S105 - opens nothing but this
    stranger = "hf_strangerstranger"

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
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
        if self.failures:
            raise self.failures[0]

    @property
    def port(self) -> int:
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
        files: dict[str, bytes],
        *,
        license: str | list[str] | None = None,  # noqa: A002 - as in a card
        base_model: str | list[str] | None = None,
        private: bool = False,
        gated: Literal["auto", "manual", False] = False,
    ) -> str:
        """Make a repository with one commit on its main branch, and return that commit's id."""
        card = {"license": license, "base_model": base_model}
        card = {key: value for key, value in card.items() if value is not None}
        self.repos[name] = Repo(name, card, private, gated)
        return self.commit(name, files, title="initial commit")

    def commit(
        self, name: str, files: dict[str, bytes | None], branch: str = "main", title: str = "commit"
    ) -> str:
        """Change files of a repository (None deletes one), and return the new commit's id."""
        oid = self.repos[name].commit(files, branch, title)
        for blob in self.repos[name].commits[oid].files.values():
            if blob.lfs:
                self.lfs.setdefault(blob.sha256, blob.content)
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
        """
        self._faults.append(Fault(method, pattern, kind, times, seconds, headers or {}, message))

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
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request, client_address):  # noqa: ARG002 - http.server's signature
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):  # a client may go away whenever it likes
            self.hub.failures.append(error)


class _Answer(Exception):  # noqa: N818 - not an error of ours: it unwinds to where answers are sent
    """An answer other than the one that was asked for."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {
            "X-Error-Message": message,
            **({"X-Error-Code": code} if code else {}),
            **(headers or {}),
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0
    routes: ClassVar[list[tuple[str, re.Pattern, Callable]]] = []
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.hub._connections.add(self.connection)

    def finish(self) -> None:
        self.server.hub._connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format, *args):  # noqa: A002 - http.server's signature
        """Say nothing: the hub keeps its own log."""

    def do_GET(self) -> None:
        hub = self.hub
        with hub._idle:
            hub._busy += 1
        self.status = self.bytes_sent = 0
        parts = urlsplit(self.path)
        self.route, self.query = parts.path, parse_qs(parts.query)
        self.form = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        self.fault = hub._take_fault(self.command, self.route)
        try:
            self._answer()
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

    do_HEAD = do_POST = do_GET  # noqa: N815 - http.server's names

    @property
    def hub(self) -> LocalHub:
        return self.server.hub

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def _answer(self) -> None:
        fault = self.fault
        try:
            if fault and fault.kind == "slow":
                self.hub._closing.wait(fault.seconds)
            if fault and fault.kind == "drop":
                self.close_connection = True
                return
            self._dispatch()
        except _Answer as answer:
            self.fault = None
            self.send(answer.status, json.dumps({"error": answer.message}).encode(), answer.headers)

    def _dispatch(self) -> None:
        if self.fault and isinstance(self.fault.kind, int):
            message = (self.fault.message or "made to fail").replace("{token}", str(self.token))
            raise _Answer(self.fault.kind, message, headers=self.fault.headers)
        if self.token not in {None, self.hub.token, self.hub.stranger}:
            raise _Answer(401, "Invalid credentials in Authorization header")
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, handle in self.routes:
            match = pattern.fullmatch(self.route)
            if match and wanted == method:
                handle(self, **{name: unquote(value) for name, value in match.groupdict(default="").items()})
                return
        raise _Answer(404, f"the local Hub has no {self.command} {self.route}")

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send an answer, damaged as the fault in force wants it."""
        kind = self.fault.kind if self.fault else None
        half = body[: len(body) // 2]
        if kind == "short":
            body = half
        if kind == "corrupt":
            body = (
                half + bytes(byte ^ 0xFF for byte in body[len(half) : len(half) + 1]) + body[len(half) + 1 :]
            )
        self.status = status
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        whole = half if kind in {"cut", "reset"} else body
        for start in range(0, len(whole), PIECE_BYTES):
            self.wfile.write(whole[start : start + PIECE_BYTES])
            self.bytes_sent += len(whole[start : start + PIECE_BYTES])
        if kind in {"cut", "reset"}:
            self.close_connection = True
        if kind == "reset":  # lingering for no time turns the closing into a reset
            self.hub._closing.wait(0.05)  # let the first half arrive: a reset discards what is on its way
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send_content(self, content: bytes, headers: dict[str, str]) -> None:
        """Send a file's content, or the part of it that Range asks for."""
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if match is None or match.groups() == ("", "") or (self.fault and self.fault.kind == "whole"):
            self.send(200, content, headers)
            return
        first, last = match.groups()
        start = int(first) if first else max(len(content) - int(last), 0)
        stop = min(int(last) + 1, len(content)) if first and last else len(content)
        if start >= stop:
            raise _Answer(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{len(content)}"})
        self.send(
            206, content[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        )

    def repo(self, name: str) -> Repo:
        """Return a repository that the asker may know of."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.token != self.hub.token):
            if self.token is None:
                raise _Answer(401, "Invalid username or password.", "RepoNotFound")
            raise _Answer(404, "Repository not found", "RepoNotFound")
        return repo

    def commit(self, name: str, revision: str) -> tuple[Repo, Commit]:
        repo = self.repo(name)
        found = repo.find(revision or "main")
        if found is None:
            raise _Answer(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repo, found


def _route(method: str, pattern: str) -> Callable[[Callable], Callable]:
    """Register a function as the answer to a route; ``{id}``, ``{rev}`` and ``{path}`` become its arguments."""
    for name, part in (("id", "[^/]+/[^/]+"), ("rev", "[^/]+"), ("path", ".+"), ("oid", "[0-9a-f]{64}")):
        pattern = pattern.replace("{" + name + "}", f"(?P<{name}>{part})")

    def register(handle: Callable) -> Callable:
        _Handler.routes.append((method, re.compile(pattern), handle))
        return handle

    return register


@_route("GET", "/api/whoami-v2")
def _whoami(ask: _Handler) -> None:
    if ask.token is None:
        raise _Answer(401, "Invalid username or password.")
    name = "keeper" if ask.token == ask.hub.token else "stranger"
    ask.send_json({"type": "user", "name": name, "orgs": [], "auth": {"accessToken": {"role": "read"}}})


@_route("GET", "/api/models/{id}(?:/revision/{rev})?")
def _model_info(ask: _Handler, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    repo, commit = ask.commit(id, rev)
    siblings = [{"rfilename": name} for name in commit.files]
    if "blobs" in ask.query:
        siblings = [{"rfilename": name, **_sibling(blob)} for name, blob in commit.files.items()]
    ask.send_json({
        "id": repo.name,
        "modelId": repo.name,
        "author": repo.name.partition("/")[0],
        "sha": commit.oid,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "tags": [],
        "cardData": repo.card or None,
        "siblings": siblings,
        "lastModified": DATE,
        "createdAt": DATE,
        "downloads": 0,
        "likes": 0,
    })  # fmt: skip


@_route("GET", "/api/models/{id}/tree/{rev}(?:/{path})?")
def _tree(ask: _Handler, id: str, rev: str, path: str) -> None:  # noqa: A002 - as in the route
    _, commit = ask.commit(id, rev)
    recursive = ask.query.get("recursive", [""])[0].lower() in {"1", "true"}
    prefix = f"{path}/" if path else ""
    inside = {name: blob for name, blob in commit.files.items() if name.startswith(prefix)}
    if path and not inside:
        raise _Answer(404, f"{path} does not exist on {rev}", "EntryNotFound")
    entries: deque[dict] = deque()
    folders = {}
    for name, blob in sorted(inside.items()):
        steps = name.removeprefix(prefix).split("/")
        for depth in range(1, len(steps)):
            if recursive or depth == 1:
                folder = prefix + "/".join(steps[:depth])
                folders[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        if recursive or len(steps) == 1:
            entries.append(_entry(name, blob))
    ask.send_json([*folders.values(), *entries])


@_route("POST", "/api/models/{id}/paths-info/{rev}")
def _paths_info(ask: _Handler, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    _, commit = ask.commit(id, rev)
    paths = parse_qs(ask.form).get("paths", [])
    ask.send_json([_entry(name, commit.files[name]) for name in paths if name in commit.files])


@_route("GET", "/api/models/{id}/refs")
def _refs(ask: _Handler, id: str) -> None:  # noqa: A002 - as in the route
    repo = ask.repo(id)

    def listed(refs: dict[str, str], kind: str) -> list[dict]:
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in refs.items()
        ]

    ask.send_json(
        {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []}
    )


@_route("GET", "/api/models/{id}/commits/{rev}")
def _commits(ask: _Handler, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    repo, commit = ask.commit(id, rev)
    ask.send_json([
        {"id": one.oid, "title": one.title, "message": "", "authors": [{"user": "keeper"}], "date": DATE}
        for one in repo.history(commit)
    ])  # fmt: skip


@_route("GET", "/{id}/resolve/{rev}/{path}")
def _resolve(ask: _Handler, id: str, rev: str, path: str) -> None:  # noqa: A002 - as in the route
    repo, commit = ask.commit(id, rev)
    if repo.gated and ask.token != ask.hub.token:
        message = f"Access to model {id} is restricted and you are not in the authorized list."
        raise _Answer(403 if ask.token else 401, message, "GatedRepo")
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        raise _Answer(404, "Entry not found", "EntryNotFound", headers)
    blob = commit.files[path]
    if not blob.lfs:
        ask.send_content(blob.content, {**headers, "ETag": f'"{blob.etag}"'})
        return
    headers |= {
        "X-Linked-Etag": f'"{blob.etag}"',
        "X-Linked-Size": str(blob.size_bytes),
        "ETag": f'"{blob.etag}"',
    }
    location = f"{ask.hub.content_url}/lfs/{blob.sha256}?signature=of-the-url&name={quote(path)}"
    ask.send(302, b"Found", {**headers, "Location": location})


@_route("GET", "/lfs/{oid}")
def _lfs(ask: _Handler, oid: str) -> None:
    if oid not in ask.hub.lfs:
        raise _Answer(404, "Not Found")
    ask.send_content(ask.hub.lfs[oid], {"ETag": f'"{oid}"'})


def _sibling(blob: Blob) -> dict:
    lfs = {"lfs": {"sha256": blob.sha256, "size": blob.size_bytes, "pointerSize": len(blob.pointer)}}
    return {"size": blob.size_bytes, "blobId": blob.git_id, **(lfs if blob.lfs else {})}


def _entry(name: str, blob: Blob) -> dict:
    lfs = {"lfs": {"oid": blob.sha256, "size": blob.size_bytes, "pointerSize": len(blob.pointer)}}
    return {
        "type": "file",
        "path": name,
        "size": blob.size_bytes,
        "oid": blob.git_id,
        **(lfs if blob.lfs else {}),
    }
