"""The routes for writing: repositories, uploads, commits, branches and tags."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import yaml

from pytest_local_hub.routing import Answer, route
from pytest_local_hub.store import Blob, OnDisk, Repo, is_large, repo_key

if TYPE_CHECKING:
    from pytest_local_hub.handler import Handler

RELATIONS = {"adapter", "merge", "quantized", "finetune"}


def _request(handler: Handler) -> dict[str, Any]:
    try:
        request = json.loads(handler.body() or b"{}")
    except ValueError as error:
        raise Answer(400, "no JSON") from error
    if not isinstance(request, dict):
        raise Answer(400, "no JSON object")
    return request


def _full_name(handler: Handler, request: dict[str, Any]) -> str:
    """Return the ``owner/name`` of a repository to create or delete; the owner defaults to the account of the request."""
    return f"{request.get('organization') or handler.account}/{request['name']}"


def _validate(handler: Handler) -> None:
    content = str(_request(handler).get("content", ""))
    errors = []
    if content.startswith("---\n"):
        try:
            front = yaml.safe_load(content[4:].partition("\n---")[0]) or {}
        except yaml.YAMLError:
            front, errors = {}, ["YAML front matter cannot be read"]
        if isinstance(front, dict) and front.get("base_model_relation", "merge") not in RELATIONS:
            errors.append('"base_model_relation" must be one of adapter, merge, quantized, finetune')
    answer = {"errors": [{"message": error} for error in errors], "warnings": []}
    handler.send(400 if errors else 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


def _create(handler: Handler) -> None:
    request = _request(handler)
    name = _full_name(handler, request)
    handler.may_write(name)
    kind = str(request.get("type") or "model")
    url = f"{handler.server.url}/{repo_key(kind, name)}"
    with handler.store.writing:
        if repo_key(kind, name) in handler.store.repos:
            body = json.dumps({"error": "You already created this repo", "url": url}).encode()
            handler.send(409, body, {"X-Error-Message": "You already created this repo"})
            return
        private = bool(request.get("private")) or request.get("visibility") == "private"
        handler.store.add_repo(
            name,
            {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"},
            repo_type="dataset" if kind == "dataset" else "model",
            private=private,
        )
    handler.send_json({"url": url, "name": name})


def _delete(handler: Handler) -> None:
    request = _request(handler)
    name = _full_name(handler, request)
    handler.may_write(name)
    kind = str(request.get("type") or "model")
    handler.repo(f"{kind}s", name)
    with handler.store.writing:
        del handler.store.repos[repo_key(kind, name)]
    handler.send_json({})


def _move(handler: Handler) -> None:
    request = _request(handler)
    old, new, kind = request["fromRepo"], request["toRepo"], str(request.get("type") or "model")
    handler.may_write(old)
    handler.may_write(new)
    repo = handler.repo(f"{kind}s", old)
    with handler.store.writing:
        if repo_key(kind, new) in handler.store.repos:
            raise Answer(409, f"{new} exists already")
        repo.name = new
        handler.store.repos[repo_key(kind, new)] = handler.store.repos.pop(repo_key(kind, old))
        handler.store.moved[old] = new
    handler.send_json({})


def _settings(handler: Handler, kind: str, name: str) -> None:
    handler.may_write(name)
    repo, request = handler.repo(kind, name), _request(handler)
    repo.private = bool(request.get("private", request.get("visibility", repo.private) in {True, "private"}))
    repo.gated = request.get("gated", repo.gated)
    handler.send_json({"private": repo.private, "gated": repo.gated})


def _preupload(handler: Handler, kind: str, name: str, rev: str) -> None:
    handler.may_write(name)
    repo = handler.repo(kind, name)
    head = repo.find(rev)
    present = head.files if head else {}
    files = []
    for file in _request(handler)["files"]:
        path = file["path"]
        mode = "lfs" if is_large(path, file["size"]) else "regular"
        entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        files.append(entry | ({"oid": present[path].etag} if path in present else {}))
    handler.send_json({"files": files})


def _batch(handler: Handler, kind: str, name: str) -> None:
    handler.may_write(name)
    handler.repo(kind, name)
    objects = []
    for entry in _request(handler)["objects"]:
        oid, size = entry["oid"], entry["size"]
        actions = {
            "upload": {"href": f"{handler.server.content_url}/upload/{oid}?size={size}", "header": {}},
            "verify": {
                "href": f"{handler.server.url}/{repo_key(kind, name)}.git/info/lfs/verify",
                "header": {},
            },
        }
        objects.append(
            {"oid": oid, "size": size, **({} if oid in handler.store.lfs else {"actions": actions})}
        )
    handler.send_json({"transfer": "basic", "objects": objects})


def _upload(handler: Handler, oid: str) -> None:
    size = int(handler.query["size"][0])
    path = handler.upload(size)
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != oid or path.stat().st_size != size:
        path.unlink()
        raise Answer(400, f"expected sha256 {oid}, found {actual}")
    handler.store.lfs[oid] = Blob(OnDisk(path, oid), lfs=True)
    handler.send(200, b"")


def _verify(handler: Handler, kind: str, name: str) -> None:  # noqa: ARG001 - as in the route
    request = _request(handler)
    blob = handler.store.lfs.get(request["oid"])
    if blob is None or blob.size_bytes != request["size"]:
        raise Answer(404, "no such object")
    handler.send_json({})


def _commit(handler: Handler, kind: str, name: str, rev: str) -> None:
    handler.may_write(name)
    repo = handler.repo(kind, name)
    lines = [json.loads(line) for line in handler.body().splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with handler.store.writing:
        head = repo.branches.get(rev)
        if head is None:
            raise Answer(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        parent = header.get("parentCommit")
        if parent and not head.startswith(parent):
            raise Answer(412, f"The head of {rev} is {head}, not {parent}")
        changes: dict[str, Blob | None] = {}
        for line in lines:
            changes |= _change(handler, repo, head, line["key"], line["value"])
        oid = handler.store.commit(repo_key(kind, name), changes, rev, header["summary"])
    handler.send_json(
        {"success": True, "commitOid": oid, "commitUrl": f"{handler.server.url}/{name}/commit/{oid}"}
    )


def _change(
    handler: Handler, repo: Repo, head: str, key: str, value: dict[str, Any]
) -> dict[str, Blob | None]:
    present = repo.commits[head].files
    name = value.get("path", "")
    match key:
        case "file":
            content = base64.b64decode(value["content"])
            return {name: Blob(content, lfs=False)}
        case "lfsFile":
            blob = handler.store.lfs.get(value["oid"])
            if blob is None:
                raise Answer(400, f"{name}: no object {value['oid']} was uploaded")
            return {name: blob}
        case "deletedFile":
            if name not in present:
                raise Answer(404, f"{name} does not exist", "EntryNotFound")
            return {name: None}
        case "deletedFolder":
            prefix = name.rstrip("/") + "/"
            return {path: None for path in present if path.startswith(prefix)}
        case "copyFile":
            source = repo.find(value.get("srcRevision") or head)
            if source is None or value["srcPath"] not in source.files:
                raise Answer(404, f"{value['srcPath']} does not exist", "EntryNotFound")
            return {name: source.files[value["srcPath"]]}
        case _:
            return {}


def _branch(handler: Handler, kind: str, name: str, ref: str) -> None:
    handler.may_write(name)
    repo, start = handler.commit(kind, name, _request(handler).get("startingPoint") or "main")
    with handler.store.writing:
        if ref in repo.branches:
            raise Answer(409, f"Reference {ref} already exists")
        repo.branches[ref] = start.oid
    handler.send_json({})


def _no_branch(handler: Handler, kind: str, name: str, ref: str) -> None:
    handler.may_write(name)
    if handler.repo(kind, name).branches.pop(ref, None) is None:
        raise Answer(404, f"no branch {ref}", "RevisionNotFound")
    handler.send_json({})


def _tag(handler: Handler, kind: str, name: str, rev: str) -> None:
    handler.may_write(name)
    repo, commit = handler.commit(kind, name, rev)
    tag = _request(handler)["tag"]
    with handler.store.writing:
        if tag in repo.tags:
            raise Answer(409, f"Tag {tag} already exists")
        repo.tags[tag] = commit.oid
    handler.send_json({})


def _no_tag(handler: Handler, kind: str, name: str, ref: str) -> None:
    handler.may_write(name)
    if handler.repo(kind, name).tags.pop(ref, None) is None:
        raise Answer(404, f"no tag {ref}", "RevisionNotFound")
    handler.send_json({})


def _squash(handler: Handler, kind: str, name: str, rev: str) -> None:
    handler.may_write(name)
    repo, _ = handler.commit(kind, name, rev)
    with handler.store.writing:
        repo.squash(rev, str(_request(handler).get("message") or f"Super-squash branch '{rev}'"))
    handler.send_json({})


ROUTES = (
    route("POST", "/api/validate-yaml", _validate),
    route("POST", "/api/repos/create", _create),
    route("DELETE", "/api/repos/delete", _delete),
    route("POST", "/api/repos/move", _move),
    route("PUT", "{api}/settings", _settings),
    route("POST", "{api}/preupload/{rev}", _preupload),
    route("POST", "{page}\\.git/info/lfs/objects/batch", _batch),
    route("PUT", "/upload/{oid}", _upload),
    route("POST", "{page}\\.git/info/lfs/verify", _verify),
    route("POST", "{api}/commit/{rev}", _commit),
    route("POST", "{api}/branch/{ref}", _branch),
    route("DELETE", "{api}/branch/{ref}", _no_branch),
    route("POST", "{api}/tag/{rev}", _tag),
    route("DELETE", "{api}/tag/{ref}", _no_tag),
    route("POST", "{api}/super-squash/{rev}", _squash),
)
