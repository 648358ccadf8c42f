"""The routes that reading needs: what a repository is and holds, and its files, whole or by ranges."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from pytest_local_hub.routing import KEEPER, Answer, route

if TYPE_CHECKING:
    from pytest_local_hub.server import Handler
    from pytest_local_hub.store import Blob

DATE = "2024-01-01T00:00:00.000Z"


@route("GET", "/api/whoami-v2")
def _whoami(ask: Handler) -> None:
    if ask.token is None:
        raise Answer(401, "Invalid username or password.")
    name, role = ask.hub.accounts[ask.token]
    orgs = [{"name": org, "roleInOrg": "write"} for org in sorted(ask.hub.orgs)] if name == KEEPER else []
    ask.send_json({"type": "user", "name": name, "orgs": orgs, "auth": {"accessToken": {"role": role}}})


@route("GET", "{api}(?:/revision/{rev})?")
def _model_info(ask: Handler, kind: str, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    repo, commit = ask.commit(kind, id, rev)
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


@route("GET", "{api}/tree/{rev}(?:/{path})?")
def _tree(ask: Handler, kind: str, id: str, rev: str, path: str) -> None:  # noqa: A002 - as in the route
    _, commit = ask.commit(kind, id, rev)
    recursive = ask.query.get("recursive", [""])[0].lower() in {"1", "true"}
    prefix = f"{path}/" if path else ""
    inside = {name: blob for name, blob in commit.files.items() if name.startswith(prefix)}
    if path and not inside:
        raise Answer(404, f"{path} does not exist on {rev}", "EntryNotFound")
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
    listed = [*folders.values(), *entries]
    start = int(ask.query.get("cursor", ["0"])[0])
    stop = start + (ask.hub.page_size or len(listed))
    headers = {}
    if stop < len(listed):
        asked = f"recursive={recursive}&cursor={stop}"
        headers["Link"] = f'<{ask.hub.url}{quote(ask.route)}?{asked}>; rel="next"'
    ask.send_json(listed[start:stop], headers)


@route("POST", "{api}/paths-info/{rev}")
def _paths_info(ask: Handler, kind: str, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    _, commit = ask.commit(kind, id, rev)
    paths = parse_qs(ask.body().decode()).get("paths", [])
    ask.send_json([_entry(name, commit.files[name]) for name in paths if name in commit.files])


@route("GET", "{api}/refs")
def _refs(ask: Handler, kind: str, id: str) -> None:  # noqa: A002 - as in the route
    repo = ask.repo(kind, id)

    def listed(refs: dict[str, str], kind: str) -> list[dict]:
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in refs.items()
        ]

    ask.send_json(
        {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []}
    )


@route("GET", "{api}/commits/{rev}")
def _commits(ask: Handler, kind: str, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    repo, commit = ask.commit(kind, id, rev)
    ask.send_json([
        {"id": one.oid, "title": one.title, "message": "", "authors": [{"user": "keeper"}], "date": DATE}
        for one in repo.history(commit)
    ])  # fmt: skip


@route("GET", "{page}/resolve/{rev}/{path}")
def _resolve(ask: Handler, kind: str, id: str, rev: str, path: str) -> None:  # noqa: A002 - as in the route
    repo, commit = ask.commit(kind, id, rev)
    if repo.gated and not ask.is_trusted:
        message = f"Access to {id} is restricted and you are not in the authorized list."
        raise Answer(403 if ask.token else 401, message, "GatedRepo")
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        raise Answer(404, "Entry not found", "EntryNotFound", headers)
    blob = commit.files[path]
    if not blob.lfs:
        ask.send_content(blob, {**headers, "ETag": f'"{blob.etag}"'})
        return
    headers |= {
        "X-Linked-Etag": f'"{blob.etag}"',
        "X-Linked-Size": str(blob.size_bytes),
        "ETag": f'"{blob.etag}"',
    }
    location = f"{ask.hub.content_url}/lfs/{blob.sha256}?signature=of-the-url&name={quote(path)}"
    ask.send(302, b"Found", {**headers, "Location": location})


@route("GET", "/lfs/{oid}")
def _lfs(ask: Handler, oid: str) -> None:
    if oid not in ask.hub.lfs:
        raise Answer(404, "Not Found")
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
