"""Pinning a release's predecessor: its commit, its weights' digests, and what its recipe, lock and measurements state.

A predecessor may be any model of the Hub. Of one that Herdbook did not make, or whose recipe or lock this version does not
read, the weights alone are compared.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from herdbook import hub, jsonio, limits, yamlio
from herdbook.errors import WrongAnswerError
from herdbook.files import git_blob_id
from herdbook.layout import EVALUATIONS, LOCK, RECIPE
from herdbook.lock.format import OtherVersionError, parse
from herdbook.lock.local import check_small
from herdbook.lock.predecessor import LockedMeasurement, LockedPredecessor

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_MEASUREMENTS = 100  # of a release, which are read
Strings = dict[str, str]


def pin_predecessor(asked: str, remote: hub.RemoteRepo | None = None) -> LockedPredecessor:
    """Pin the predecessor of a release.

    Args:
        asked: ``owner/name[@revision]``, the recipe's entry.
        remote: What it resolves to, if that is known.

    Raises:
        SourceError: If its repository, or a file that it lists, cannot be read.
    """
    repo, _, revision = asked.partition("@")
    remote = remote or hub.resolve(repo, revision or None)
    files = {file.name: file for file in remote.files}
    recipe = _recipe(_read(repo, remote.commit, files[RECIPE])) if RECIPE in files else {}
    return LockedPredecessor(
        asked=asked,
        repo=repo,
        revision=remote.commit,
        weights={
            file.name: file.sha256
            for file in remote.files
            if file.sha256 and file.name.endswith((".safetensors", ".gguf"))
        },
        models=_models(recipe),
        sources=_sources(_read(repo, remote.commit, files[LOCK])) if LOCK in files else None,
        measured=_measured(recipe, repo, remote),
    )


def _read(repo: str, commit: str, file: hub.RemoteFile) -> bytes:
    """Return a small file. Raises SourceError if it is none, and WrongAnswerError if its digest is another."""
    what = f"hub: {repo}@{commit[:8]}: {file.name}"
    check_small(file.size_bytes, what)
    content, _ = hub.read_file(repo, commit, file.name, 0, file.size_bytes)
    digests = {None, hashlib.sha256(content).hexdigest()}, {None, git_blob_id(content)}
    if file.sha256 not in digests[0] or file.git_blob not in digests[1]:
        raise WrongAnswerError(f"{what}: its content does not have the digest that the Hub states")
    return content


def _recipe(content: bytes) -> dict[str, Any]:
    """Return a recipe's entries; none if it is not one."""
    try:
        found = yamlio.load(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, yamlio.YamlError):
        return {}
    return found if isinstance(found, dict) else {}


def _models(recipe: dict[str, Any]) -> dict[str, Any] | None:
    """Return the models of a recipe; None if it has none that JSON can represent."""
    try:
        found = json.loads(json.dumps(recipe.get("models"), allow_nan=False))
    except (TypeError, ValueError):  # a date, or a number that is none
        return None
    return found if isinstance(found, dict) else None


def _sources(content: bytes) -> Strings | None:
    """Return where the sources that a lock pins are from; None if this version does not read the lock."""
    try:
        return {name: source.uri for name, source in parse(content).sources.items()}
    except (
        limits.OverLimitError,
        jsonio.JsonError,
        OtherVersionError,
        UnicodeDecodeError,
        ValidationError,
    ):
        return None


def _measured(recipe: dict[str, Any], repo: str, remote: hub.RemoteRepo) -> dict[str, LockedMeasurement]:
    """Return the released model's results by task."""
    release = recipe.get("release")
    name = release.get("model") if isinstance(release, dict) else None
    listed = [file for file in remote.files if file.name.startswith(f"{EVALUATIONS}/")]
    listed = [file for file in listed if file.name.endswith(".json")][:MOST_MEASUREMENTS]
    found: dict[str, LockedMeasurement] = {}
    for file in listed if isinstance(name, str) else ():
        try:
            content = jsonio.load_object(_read(repo, remote.commit, file), limits.DOCUMENT)
            if content.get("name") == name:
                found |= dict(_results(content))
        except (limits.OverLimitError, jsonio.JsonError, LookupError, TypeError, AttributeError, ValueError):
            continue  # what cannot be read is not compared
    return found


def _results(content: dict[str, Any]) -> Iterator[tuple[str, LockedMeasurement]]:
    for task, result in content["tasks"].items():
        metrics = {metric: score["value"] for metric, score in result["metrics"].items()}
        yield task, LockedMeasurement(requests=result["requests"], metrics=metrics)
