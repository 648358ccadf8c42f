"""Repositories: what a name resolves to, and which of its files make up a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # its lazy exports
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from herdbook import jsonio, limits
from herdbook.errors import SourceError, WrongAnswerError
from herdbook.faults import first_in_words
from herdbook.hub.failure import persist
from herdbook.hub.transport import client, read_whole
from herdbook.layout import WEIGHTS, WEIGHTS_INDEX
from herdbook.sources.data_set import is_data
from herdbook.sources.index import read_index
from herdbook.sources.select import SIDE_FILES, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OTHER_FILES = ("README.md", "vocab.txt")
_LICENSE = re.compile(r"licen[cs]e[\w-]*(\.(txt|md|rst|pdf))?", re.IGNORECASE)
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBERED = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")


Kind = Literal["model", "dataset"]  # of repositories, as the Hub's client calls them


def spelt(repo: str, kind: Kind) -> str:
    """Return a repository's name as the Hub's addresses have it."""
    return repo if kind == "model" else f"datasets/{repo}"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Args:
        name: Its path inside the repository.
        size_bytes: Its size.
        sha256: SHA-256 of its content; the Hub has it for large files only.
        git_blob: The id that git gives to its content; for small files only, since git stores pointers to the others.
    """

    name: str
    size_bytes: int
    sha256: str | None
    git_blob: str | None


@dataclass(frozen=True)
class RemoteRepo:
    """A repository at one commit.

    Args:
        repo: ``owner/name`` as the Hub spells it now; differs from the request if the repository was renamed.
        commit: The commit, 40 hexadecimal digits.
        files: Its files, sorted by name.
        gated: How access is granted, or False if the repository is public.
    """

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    gated: Literal["auto", "manual", False]


class _Described(BaseModel):
    """The Hub's description of something; other entries are not read."""

    model_config = ConfigDict(strict=True)


class _Pointer(_Described):
    """The Hub's description of a large file."""

    sha256: str


class _Sibling(_Described):
    """The Hub's description of a file."""

    rfilename: str
    size: int | None = None
    blob_id: str | None = Field(None, alias="blobId")
    lfs: _Pointer | None = None


class _Answer(_Described):
    """The Hub's description of a repository, as far as it is read here."""

    id: str
    sha: str
    siblings: Annotated[list[_Sibling] | None, FailFast()] = None
    gated: Any = None


def resolve(repo: str, revision: str | None, kind: Kind = "model") -> RemoteRepo:
    """Look up a repository on the Hub, with one request.

    Args:
        repo: ``owner/name``.
        revision: A branch, tag or commit; None for the main branch.
        kind: Whether it is that of a model or of a data set.

    Raises:
        GoneError: If the repository has no such revision.
        SourceError: If it is unavailable, or if the answer names files outside the repository.
        WrongAnswerError: If the answer contradicts itself or the request.
    """
    what = f"hub: {spelt(repo, kind)}@{revision}" if revision else f"hub: {spelt(repo, kind)}"

    def request() -> _Answer:
        validate_repo_id(repo)
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        content = read_whole(f"{client().endpoint}/api/{kind}s/{repo}{at}?blobs=True")
        try:
            return _Answer.model_validate(jsonio.load(content, limits.ANSWER))
        except ValidationError as error:
            raise ValueError(
                f"the response does not describe a repository: {first_in_words(error)}"
            ) from error

    info = persist(request, what, spelt(repo, kind))
    commit = info.sha
    if not COMMIT.fullmatch(commit):
        raise WrongAnswerError(f"{what}: the Hub returned {commit!r} as its commit, which is not a commit")
    if revision and COMMIT.fullmatch(revision) and commit != revision:
        raise WrongAnswerError(f"{what}: the Hub returned another commit, {commit}")
    files = sorted(
        (remote_file(sibling, what) for sibling in info.siblings or ()), key=lambda file: file.name
    )
    gated: Literal["auto", "manual", False] = "manual" if info.gated else False
    return RemoteRepo(
        repo=info.id,
        commit=commit,
        files=tuple(files),
        gated="auto" if info.gated == "auto" else gated,
    )


def weights_of(
    files: Iterable[RemoteFile], index: bytes | None = None, what: str = "hub"
) -> tuple[RemoteFile, ...]:
    """Return the safetensors files that make up a model, sorted by name.

    Repositories often contain the same weights twice (``consolidated.safetensors``); only the files that the index names
    are used, or ``model.safetensors`` without an index.

    Args:
        files: All files of the repository.
        index: Content of its index. Without it, shards are recognized by name: ``model-00001-of-00002.safetensors``.
        what: The repository, for error messages.

    Raises:
        SourceError: If no such files exist, if the weights are pickles, or if some are missing.
    """
    by_name = {file.name: file for file in files}
    for name in by_name:
        check_name(name, what)
    if index is not None:
        try:
            names = set(read_index(index).values())
        except limits.OverLimitError as error:
            raise SourceError(f"{what}: {WEIGHTS_INDEX} {error}") from error
        except ValueError as error:
            raise SourceError(f"{what}: {WEIGHTS_INDEX} is damaged: {error}") from error
    elif WEIGHTS_INDEX in by_name:
        counts = {match[2] for match in map(_NUMBERED.fullmatch, by_name) if match}
        if len(counts) > 1:
            raise SourceError(
                f"{what}: contains several sets of shards, and {WEIGHTS_INDEX} was not read to choose one"
            )
        names = {f"model-{i:05}-of-{count}.safetensors" for count in counts for i in range(1, int(count) + 1)}
    else:
        names = {WEIGHTS} & by_name.keys()
    refused = sorted(name for name in names if not name.endswith(".safetensors"))
    if refused:
        raise SourceError(
            f"{what}: refused: {WEIGHTS_INDEX} names {refused[0]!r}, which is not a safetensors file"
        )
    missing = sorted(names - by_name.keys())
    if missing:
        raise SourceError(f"{what}: {missing[0]} belongs to the model's weights but is missing")
    if not names and any(name.endswith(PICKLE_SUFFIXES) for name in by_name):
        raise SourceError(
            f"{what}: refused: its weights are only pickles, which can run code when they are opened. Load them in a "
            "sandbox without network, save them with save_pretrained(folder, safe_serialization=True), and name that "
            "folder in the recipe; or let the Hub's safetensors conversion space open a pull request, and name its "
            "revision."
        )
    if shards := sorted(filter(_NUMBERED.fullmatch, by_name)) if not names else []:
        raise SourceError(
            f"{what}: contains shards ({shards[0]}) without {WEIGHTS_INDEX}, so transformers does not load them. Write the "
            "index, or load the tensors and save the model with save_pretrained, and name that folder."
        )
    if not names:
        raise SourceError(f"{what}: contains no weights in safetensors")
    if index is not None and WEIGHTS in by_name and WEIGHTS not in names:
        raise SourceError(
            f"{what}: contains both {WEIGHTS}, which transformers loads, and {WEIGHTS_INDEX}, which names other files. Remove "
            "one of them."
        )
    return tuple(by_name[name] for name in sorted(names))


def is_wanted(name: str, kind: Kind = "model") -> bool:
    """Return whether a file of this name may be downloaded: weights, or data that belongs to them; or documents."""
    if kind == "dataset":
        return is_data(name)
    last = PurePosixPath(name).name
    return (
        last.endswith((".safetensors", ".gguf", ".imatrix", ".dat", ".json"))
        or last in {*SIDE_FILES, *OTHER_FILES}
        or _LICENSE.fullmatch(last) is not None
    )


def remote_file(sibling: Any, what: str) -> RemoteFile:
    """Return a file from the client's description.

    Raises:
        WrongAnswerError: If size or digest is missing or malformed.
        SourceError: If its name leads out of the repository.
    """
    name = check_name(str(sibling.rfilename), what)
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    git_blob = None if sibling.lfs else sibling.blob_id
    plausible = SHA256.fullmatch(str(sha256)) if sibling.lfs else COMMIT.fullmatch(str(git_blob))
    if not isinstance(sibling.size, int) or sibling.size < 0 or not plausible:
        raise WrongAnswerError(f"{what}: the Hub returned no valid size and digest of {name}")
    return RemoteFile(name, sibling.size, sha256, git_blob)


def check_pin(commit: str, name: str, what: str) -> None:
    """Refuse a malformed commit, and a name that leads out of its folder. Raises SourceError."""
    check_name(name, what)
    if not COMMIT.fullmatch(commit):
        raise SourceError(
            f"{what}: {commit!r} is not a commit of 40 hexadecimal digits. Run `herdbook lock`."
        )
