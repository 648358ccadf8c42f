"""The routes that writing needs: repositories, uploads, commits, branches and tags."""

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


def _asked(ask: Handler) -> dict[str, Any]:
    try:
        asked = json.loads(ask.body() or b"{}")
    except ValueError as error:
        raise Answer(400, "no JSON") from error
    if not isinstance(asked, dict):
        raise Answer(400, "no JSON object")
    return asked


def _full_name(ask: Handler, asked: dict[str, Any]) -> str:
    """Return the ``owner/name`` of a repository that is to be made or deleted; the owner is the asker unless named."""
    return f"{asked.get('organization') or ask.account}/{asked['name']}"


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


def _create(ask: Handler) -> None:
    asked = _asked(ask)
    name = _full_name(ask, asked)
    ask.may_write(name)
    kind = str(asked.get("type") or "model")
    url = f"{ask.server.url}/{repo_key(kind, name)}"
    with ask.store.writing:
        if repo_key(kind, name) in ask.store.repos:
            body = json.dumps({"error": "You already created this repo", "url": url}).encode()
            ask.send(409, body, {"X-Error-Message": "You already created this repo"})
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        ask.store.add_repo(
            name,
            {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"},
            repo_type="dataset" if kind == "dataset" else "model",
            private=private,
        )
    ask.send_json({"url": url, "name": name})


def _delete(ask: Handler) -> None:
    asked = _asked(ask)
    name = _full_name(ask, asked)
    ask.may_write(name)
    kind = str(asked.get("type") or "model")
    ask.repo(f"{kind}s", name)
    with ask.store.writing:
        del ask.store.repos[repo_key(kind, name)]
    ask.send_json({})


def _move(ask: Handler) -> None:
    asked = _asked(ask)
    old, new, kind = asked["fromRepo"], asked["toRepo"], str(asked.get("type") or "model")
    ask.may_write(old)
    ask.may_write(new)
    repo = ask.repo(f"{kind}s", old)
    with ask.store.writing:
        if repo_key(kind, new) in ask.store.repos:
            raise Answer(409, f"{new} exists already")
        repo.name = new
        ask.store.repos[repo_key(kind, new)] = ask.store.repos.pop(repo_key(kind, old))
        ask.store.moved[old] = new
    ask.send_json({})


def _settings(ask: Handler, kind: str, name: str) -> None:
    ask.may_write(name)
    repo, asked = ask.repo(kind, name), _asked(ask)
    repo.private = bool(asked.get("private", asked.get("visibility", repo.private) in {True, "private"}))
    repo.gated = asked.get("gated", repo.gated)
    ask.send_json({"private": repo.private, "gated": repo.gated})


def _preupload(ask: Handler, kind: str, name: str, rev: str) -> None:
    ask.may_write(name)
    repo = ask.repo(kind, name)
    head = repo.find(rev)
    held = head.files if head else {}
    files = []
    for file in _asked(ask)["files"]:
        path = file["path"]
        mode = "lfs" if is_large(path, file["size"]) else "regular"
        one = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        files.append(one | ({"oid": held[path].etag} if path in held else {}))
    ask.send_json({"files": files})


def _batch(ask: Handler, kind: str, name: str) -> None:
    ask.may_write(name)
    ask.repo(kind, name)
    objects = []
    for one in _asked(ask)["objects"]:
        oid, size = one["oid"], one["size"]
        actions = {
            "upload": {"href": f"{ask.server.content_url}/upload/{oid}?size={size}", "header": {}},
            "verify": {"href": f"{ask.server.url}/{repo_key(kind, name)}.git/info/lfs/verify", "header": {}},
        }
        objects.append({"oid": oid, "size": size, **({} if oid in ask.store.lfs else {"actions": actions})})
    ask.send_json({"transfer": "basic", "objects": objects})


def _upload(ask: Handler, oid: str) -> None:
    size = int(ask.query["size"][0])
    path = ask.upload(size)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != oid or path.stat().st_size != size:
        path.unlink()
        raise Answer(400, f"expected sha256 {oid}, found {found}")
    ask.store.lfs[oid] = Blob(OnDisk(path, oid), lfs=True)
    ask.send(200, b"")


def _verify(ask: Handler, kind: str, name: str) -> None:  # noqa: ARG001 - as in the route
    asked = _asked(ask)
    blob = ask.store.lfs.get(asked["oid"])
    if blob is None or blob.size_bytes != asked["size"]:
        raise Answer(404, "no such object")
    ask.send_json({})


def _commit(ask: Handler, kind: str, name: str, rev: str) -> None:
    ask.may_write(name)
    repo = ask.repo(kind, name)
    lines = [json.loads(line) for line in ask.body().splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with ask.store.writing:
        head = repo.branches.get(rev)
        if head is None:
            raise Answer(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        parent = header.get("parentCommit")
        if parent and not head.startswith(parent):
            raise Answer(412, f"The head of {rev} is {head}, not {parent}")
        changes: dict[str, Blob | None] = {}
        for line in lines:
            changes |= _change(ask, repo, head, line["key"], line["value"])
        oid = ask.store.commit(repo_key(kind, name), changes, rev, header["summary"])
    ask.send_json({"success": True, "commitOid": oid, "commitUrl": f"{ask.server.url}/{name}/commit/{oid}"})


def _change(ask: Handler, repo: Repo, head: str, key: str, value: dict[str, Any]) -> dict[str, Blob | None]:
    held = repo.commits[head].files
    name = value.get("path", "")
    match key:
        case "file":
            content = base64.b64decode(value["content"])
            return {name: Blob(content, lfs=False)}
        case "lfsFile":
            blob = ask.store.lfs.get(value["oid"])
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


def _branch(ask: Handler, kind: str, name: str, ref: str) -> None:
    ask.may_write(name)
    repo, start = ask.commit(kind, name, _asked(ask).get("startingPoint") or "main")
    with ask.store.writing:
        if ref in repo.branches:
            raise Answer(409, f"Reference {ref} already exists")
        repo.branches[ref] = start.oid
    ask.send_json({})


def _no_branch(ask: Handler, kind: str, name: str, ref: str) -> None:
    ask.may_write(name)
    if ask.repo(kind, name).branches.pop(ref, None) is None:
        raise Answer(404, f"no branch {ref}", "RevisionNotFound")
    ask.send_json({})


def _tag(ask: Handler, kind: str, name: str, rev: str) -> None:
    ask.may_write(name)
    repo, commit = ask.commit(kind, name, rev)
    tag = _asked(ask)["tag"]
    with ask.store.writing:
        if tag in repo.tags:
            raise Answer(409, f"Tag {tag} already exists")
        repo.tags[tag] = commit.oid
    ask.send_json({})


def _no_tag(ask: Handler, kind: str, name: str, ref: str) -> None:
    ask.may_write(name)
    if ask.repo(kind, name).tags.pop(ref, None) is None:
        raise Answer(404, f"no tag {ref}", "RevisionNotFound")
    ask.send_json({})


def _squash(ask: Handler, kind: str, name: str, rev: str) -> None:
    ask.may_write(name)
    repo, _ = ask.commit(kind, name, rev)
    with ask.store.writing:
        repo.squash(rev, str(_asked(ask).get("message") or f"Super-squash branch '{rev}'"))
    ask.send_json({})


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
