"""The routes that writing needs: repositories, uploads, commits, branches and tags."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import yaml

from pytest_local_hub.routing import Answer, route
from pytest_local_hub.store import LFS_BYTES, LFS_SUFFIXES, Blob, OnDisk, Repo

if TYPE_CHECKING:
    from pytest_local_hub.server import Handler

MADE = {True: "datasets/", False: ""}
RELATIONS = {"adapter", "merge", "quantized", "finetune"}


def _key(kind: str, name: str) -> str:
    return f"{MADE[kind.startswith('dataset')]}{name}"


def _asked(ask: Handler) -> dict[str, Any]:
    try:
        asked = json.loads(ask.body() or b"{}")
    except ValueError as error:
        raise Answer(400, "no JSON") from error
    if not isinstance(asked, dict):
        raise Answer(400, "no JSON object")
    return asked


@route("POST", "/api/validate-yaml")
def _validate(ask: Handler) -> None:
    content = str(_asked(ask).get("content", ""))
    errors = []
    if content.startswith("---\n"):
        try:
            front = yaml.safe_load(content[4:].partition("\n---")[0]) or {}
        except yaml.YAMLError:
            front, errors = {}, ["YAML front matter cannot be read"]
        if isinstance(front, dict) and front.get("base_model_relation", "merge") not in RELATIONS:
            errors.append('"base_model_relation" must be one of adapter, merge, quantized, finetune')
    answer = {"errors": [{"message": error} for error in errors], "warnings": []}
    ask.send(400 if errors else 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


@route("POST", "/api/repos/create")
def _create(ask: Handler) -> None:
    asked = _asked(ask)
    owner = asked.get("organization") or ask.hub.accounts.get(ask.token, ("", ""))[0]
    name = f"{owner}/{asked['name']}"
    ask.may_write(name)
    kind = str(asked.get("type") or "model")
    url = f"{ask.hub.url}/{_key(kind, name)}"
    with ask.hub.writing:
        if _key(kind, name) in ask.hub.repos:
            body = json.dumps({"error": "You already created this repo", "url": url}).encode()
            ask.send(409, body, {"X-Error-Message": "You already created this repo"})
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        ask.hub.add_repo(
            name,
            {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"},
            repo_type="dataset" if kind == "dataset" else "model",
            private=private,
        )
    ask.send_json({"url": url, "name": name})


@route("DELETE", "/api/repos/delete")
def _delete(ask: Handler) -> None:
    asked = _asked(ask)
    owner = asked.get("organization") or ask.hub.accounts.get(ask.token, ("", ""))[0]
    name = f"{owner}/{asked['name']}"
    ask.may_write(name)
    kind = str(asked.get("type") or "model")
    ask.repo(f"{kind}s", name)
    with ask.hub.writing:
        del ask.hub.repos[_key(kind, name)]
    ask.send_json({})


@route("POST", "/api/repos/move")
def _move(ask: Handler) -> None:
    asked = _asked(ask)
    old, new, kind = asked["fromRepo"], asked["toRepo"], str(asked.get("type") or "model")
    ask.may_write(old)
    ask.may_write(new)
    repo = ask.repo(f"{kind}s", old)
    with ask.hub.writing:
        if _key(kind, new) in ask.hub.repos:
            raise Answer(409, f"{new} exists already")
        repo.name = new
        ask.hub.repos[_key(kind, new)] = ask.hub.repos.pop(_key(kind, old))
        ask.hub.moved[old] = new
    ask.send_json({})


@route("PUT", "{api}/settings")
def _settings(ask: Handler, kind: str, id: str) -> None:  # noqa: A002 - as in the route
    ask.may_write(id)
    repo, asked = ask.repo(kind, id), _asked(ask)
    repo.private = bool(asked.get("private", asked.get("visibility", repo.private) in {True, "private"}))
    repo.gated = asked.get("gated", repo.gated)
    ask.send_json({"private": repo.private, "gated": repo.gated})


@route("POST", "{api}/preupload/{rev}")
def _preupload(ask: Handler, kind: str, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    ask.may_write(id)
    repo = ask.repo(kind, id)
    head = repo.find(rev)
    held = head.files if head else {}
    files = []
    for file in _asked(ask)["files"]:
        name = file["path"]
        large = name.endswith(LFS_SUFFIXES) or file["size"] > LFS_BYTES
        one = {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        files.append(one | ({"oid": held[name].etag} if name in held else {}))
    ask.send_json({"files": files})


@route("POST", "{page}\\.git/info/lfs/objects/batch")
def _batch(ask: Handler, kind: str, id: str) -> None:  # noqa: A002 - as in the route
    ask.may_write(id)
    ask.repo(kind, id)
    objects = []
    for one in _asked(ask)["objects"]:
        oid, size = one["oid"], one["size"]
        actions = {
            "upload": {"href": f"{ask.hub.content_url}/upload/{oid}?size={size}", "header": {}},
            "verify": {"href": f"{ask.hub.url}/{_key(kind, id)}.git/info/lfs/verify", "header": {}},
        }
        objects.append({"oid": oid, "size": size, **({} if oid in ask.hub.lfs else {"actions": actions})})
    ask.send_json({"transfer": "basic", "objects": objects})


@route("PUT", "/upload/{oid}")
def _upload(ask: Handler, oid: str) -> None:
    size = int(ask.query["size"][0])
    path = ask.upload(size)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != oid or path.stat().st_size != size:
        path.unlink()
        raise Answer(400, f"expected sha256 {oid}, found {found}")
    ask.hub.lfs[oid] = Blob(OnDisk(path, oid), lfs=True)
    ask.send(200, b"")


@route("POST", "{page}\\.git/info/lfs/verify")
def _verify(ask: Handler, kind: str, id: str) -> None:  # noqa: A002, ARG001 - as in the route
    asked = _asked(ask)
    blob = ask.hub.lfs.get(asked["oid"])
    if blob is None or blob.size_bytes != asked["size"]:
        raise Answer(404, "no such object")
    ask.send_json({})


@route("POST", "{api}/commit/{rev}")
def _commit(ask: Handler, kind: str, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    ask.may_write(id)
    repo = ask.repo(kind, id)
    lines = [json.loads(line) for line in ask.body().splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with ask.hub.writing:
        head = repo.branches.get(rev)
        if head is None:
            raise Answer(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        parent = header.get("parentCommit")
        if parent and not head.startswith(parent):
            raise Answer(412, f"The head of {rev} is {head}, not {parent}")
        changes: dict[str, Blob | None] = {}
        for line in lines:
            changes |= _change(ask, repo, head, line["key"], line["value"])
        oid = ask.hub.commit(_key(kind, id), changes, rev, header["summary"])
    ask.send_json({"success": True, "commitOid": oid, "commitUrl": f"{ask.hub.url}/{id}/commit/{oid}"})


def _change(ask: Handler, repo: Repo, head: str, key: str, value: dict[str, Any]) -> dict[str, Blob | None]:
    held = repo.commits[head].files
    name = value.get("path", "")
    match key:
        case "file":
            content = base64.b64decode(value["content"])
            return {name: Blob(content, lfs=False)}
        case "lfsFile":
            blob = ask.hub.lfs.get(value["oid"])
            if blob is None:
                raise Answer(400, f"{name}: no object {value['oid']} was uploaded")
            return {name: blob}
        case "deletedFile":
            if name not in held:
                raise Answer(404, f"{name} does not exist", "EntryNotFound")
            return {name: None}
        case "deletedFolder":
            prefix = name.rstrip("/") + "/"
            return {other: None for other in held if other.startswith(prefix)}
        case "copyFile":
            source = repo.find(value.get("srcRevision") or head)
            if source is None or value["srcPath"] not in source.files:
                raise Answer(404, f"{value['srcPath']} does not exist", "EntryNotFound")
            return {name: source.files[value["srcPath"]]}
        case _:
            return {}


@route("POST", "{api}/branch/{name}")
def _branch(ask: Handler, kind: str, id: str, name: str) -> None:  # noqa: A002 - as in the route
    ask.may_write(id)
    repo, start = ask.commit(kind, id, _asked(ask).get("startingPoint") or "main")
    with ask.hub.writing:
        if name in repo.branches:
            raise Answer(409, f"Reference {name} already exists")
        repo.branches[name] = start.oid
    ask.send_json({})


@route("DELETE", "{api}/branch/{name}")
def _no_branch(ask: Handler, kind: str, id: str, name: str) -> None:  # noqa: A002 - as in the route
    ask.may_write(id)
    if ask.repo(kind, id).branches.pop(name, None) is None:
        raise Answer(404, f"no branch {name}", "RevisionNotFound")
    ask.send_json({})


@route("POST", "{api}/tag/{rev}")
def _tag(ask: Handler, kind: str, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    ask.may_write(id)
    repo, commit = ask.commit(kind, id, rev)
    tag = _asked(ask)["tag"]
    with ask.hub.writing:
        if tag in repo.tags:
            raise Answer(409, f"Tag {tag} already exists")
        repo.tags[tag] = commit.oid
    ask.send_json({})


@route("DELETE", "{api}/tag/{name}")
def _no_tag(ask: Handler, kind: str, id: str, name: str) -> None:  # noqa: A002 - as in the route
    ask.may_write(id)
    if ask.repo(kind, id).tags.pop(name, None) is None:
        raise Answer(404, f"no tag {name}", "RevisionNotFound")
    ask.send_json({})


@route("POST", "{api}/super-squash/{rev}")
def _squash(ask: Handler, kind: str, id: str, rev: str) -> None:  # noqa: A002 - as in the route
    ask.may_write(id)
    repo, _ = ask.commit(kind, id, rev)
    with ask.hub.writing:
        repo.squash(rev, str(_asked(ask).get("message") or f"Super-squash branch '{rev}'"))
    ask.send_json({})
