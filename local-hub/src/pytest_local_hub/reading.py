"""The routes for reading: a repository's description and listing, and its files, whole or by ranges."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from pytest_local_hub.routing import Answer, route
from pytest_local_hub.store import KEEPER

if TYPE_CHECKING:
    from pytest_local_hub.handler import Handler
    from pytest_local_hub.store import Blob

DATE = "2024-01-01T00:00:00.000Z"


def _whoami(handler: Handler) -> None:
    if handler.token is None:
        raise Answer(401, "Invalid username or password.")
    if handler.token in handler.store.scopes:  # no account of a person
        raise Answer(403, "This token has no access to this endpoint")
    name, role = handler.store.accounts[handler.token]
    orgs = (
        [{"name": org, "roleInOrg": "write"} for org in sorted(handler.store.orgs)] if name == KEEPER else []
    )
    handler.send_json({"type": "user", "name": name, "orgs": orgs, "auth": {"accessToken": {"role": role}}})


def _model_info(handler: Handler, kind: str, name: str, rev: str) -> None:
    repo, commit = handler.commit(kind, name, rev)
    siblings = [{"rfilename": file} for file in commit.files]
    if "blobs" in handler.query:
        siblings = [{"rfilename": file, **_sibling(blob)} for file, blob in commit.files.items()]
    handler.send_json({
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


def _tree(handler: Handler, kind: str, name: str, rev: str, path: str) -> None:
    _, commit = handler.commit(kind, name, rev)
    recursive = handler.query.get("recursive", [""])[0].lower() in {"1", "true"}
    prefix = f"{path}/" if path else ""
    inside = {file: blob for file, blob in commit.files.items() if file.startswith(prefix)}
    if path and not inside:
        raise Answer(404, f"{path} does not exist on {rev}", "EntryNotFound")
    entries: deque[dict[str, Any]] = deque()
    folders = {}
    for file, blob in sorted(inside.items()):
        steps = file.removeprefix(prefix).split("/")
        for depth in range(1, len(steps)):
            if recursive or depth == 1:
                folder = prefix + "/".join(steps[:depth])
                folders[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        if recursive or len(steps) == 1:
            entries.append(_entry(file, blob))
    _send_listing(handler, [*folders.values(), *entries], f"recursive={recursive}&")


def _send_listing(handler: Handler, listed: list[dict[str, Any]], query: str = "") -> None:
    """Send one page of a listing, with the address of the next one."""
    start = int(handler.query.get("cursor", ["0"])[0])
    stop = start + (handler.store.page_size or len(listed))
    headers = {}
    if stop < len(listed):
        address = f"{handler.server.url}{handler.route}?{query}cursor={stop}"
        headers["Link"] = f'<{address}>; rel="next"'
    handler.send_json(listed[start:stop], headers)


def _paths_info(handler: Handler, kind: str, name: str, rev: str) -> None:
    _, commit = handler.commit(kind, name, rev)
    paths = parse_qs(handler.body().decode()).get("paths", [])
    handler.send_json([_entry(path, commit.files[path]) for path in paths if path in commit.files])


def _refs(handler: Handler, kind: str, name: str) -> None:
    repo = handler.repo(kind, name)

    def listed(refs: dict[str, str], group: str) -> list[dict[str, Any]]:
        return [{"name": ref, "ref": f"refs/{group}/{ref}", "targetCommit": oid} for ref, oid in refs.items()]

    refs = {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags")}
    refs["converts"] = listed(repo.converts, "convert")
    if "include_prs" in handler.query:
        refs["pullRequests"] = listed(repo.pull_requests, "pr")
    handler.send_json(refs)


def _commits(handler: Handler, kind: str, name: str, rev: str) -> None:
    repo, commit = handler.commit(kind, name, rev)
    about = {"message": "", "authors": [{"user": "keeper"}], "date": DATE}
    listed = [{"id": each.oid, "title": each.title, **about} for each in repo.history(commit)]
    _send_listing(handler, listed)


def _resolve(handler: Handler, kind: str, name: str, rev: str, path: str) -> None:
    repo, commit = handler.commit(kind, name, rev)
    if repo.gated and not handler.may_see(repo.name):
        message = f"Access to {name} is restricted and you are not in the authorized list."
        raise Answer(403 if handler.token else 401, message, "GatedRepo")
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        raise Answer(404, "Entry not found", "EntryNotFound", headers)
    blob = commit.files[path]
    if not blob.lfs:
        handler.send_content(blob, {**headers, "ETag": f'"{blob.etag}"'})
        return
    headers |= {
        "X-Linked-Etag": f'"{blob.etag}"',
        "X-Linked-Size": str(blob.size_bytes),
        "ETag": f'"{blob.etag}"',
    }
    location = f"{handler.server.content_url}/lfs/{blob.sha256}?signature=of-the-url&name={quote(path)}"
    handler.send(302, b"Found", {**headers, "Location": location})


def _lfs(handler: Handler, oid: str) -> None:
    if oid not in handler.store.lfs:
        raise Answer(404, "Not Found")
    handler.send_content(handler.store.lfs[oid], {"ETag": f'"{oid}"'})


def _sibling(blob: Blob) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": blob.sha256, "size": blob.size_bytes, "pointerSize": len(blob.pointer)}}
    return {"size": blob.size_bytes, "blobId": blob.git_id, **(lfs if blob.lfs else {})}


def _entry(name: str, blob: Blob) -> dict[str, Any]:
    lfs = {"lfs": {"oid": blob.sha256, "size": blob.size_bytes, "pointerSize": len(blob.pointer)}}
    return {
        "type": "file",
        "path": name,
        "size": blob.size_bytes,
        "oid": blob.git_id,
        **(lfs if blob.lfs else {}),
    }


ROUTES = (
    route("GET", "/api/whoami-v2", _whoami),
    route("GET", "{api}(?:/revision/{rev})?", _model_info),
    route("GET", "{api}/tree/{rev}(?:/{path})?", _tree),
    route("POST", "{api}/paths-info/{rev}", _paths_info),
    route("GET", "{api}/refs", _refs),
    route("GET", "{api}/commits/{rev}", _commits),
    route("GET", "{page}/resolve/{rev}/{path}", _resolve),
    route("GET", "/lfs/{oid}", _lfs),
)
