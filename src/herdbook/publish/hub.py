"""A repository on the Hub, for writing: permissions, content, commits, tags.

A commit request is sent once, with its parent, and is not repeated, since it could create two commits. If its response is
lost, the caller reads the repository to see whether the commit exists. All other requests are repeated when they fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    get_token,
    hf_hub_url,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # its lazy exports

from herdbook import hub
from herdbook.errors import SourceError, StepError
from herdbook.files import git_blob_id
from herdbook.layout import OUTSIDE_SUMS
from herdbook.publish.local import LocalFile
from herdbook.publish.proposal import RemoteState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from herdbook.hub import RemoteFile
    from herdbook.release.subject import FolderSubject

Result = TypeVar("Result")
# Sent in place of a .gitignore in the repository, which would silently drop files.
ALL_FILES = "# nothing is left out\n"
MOVED_STATUS = (409, 412)
_READ_ONLY = " A trusted publisher may have been added as read-only."
BATCH_BYTES = 5 * 10**9  # sent in five minutes at 17 MB/s: a token is renewed that long before it expires


class UncertainCommitError(StepError):
    """A requested commit may not exist; reading the repository shows whether it does.

    Args:
        message: The message for the user.
        wait_s: How many seconds the Hub requests to wait before the next request.
    """

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class MovedError(UncertainCommitError):
    """The repository's head is not the parent of the requested commit."""


class UnansweredError(UncertainCommitError):
    """The Hub did not answer, so it is not known whether the commit exists."""


@dataclass(frozen=True)
class Publisher:
    """A job of a CI, whose identity the Hub has exchanged for a token of one repository.

    The Hub has no account for it, and reports nothing about the token; what it may write to is known from the request.

    Args:
        resource: The repository that the token may write to, ``owner/name``; a name without an owner may read only.
    """

    resource: str


@dataclass(frozen=True)
class Account:
    """The account that publishes.

    Args:
        name: The account's name.
        owners: The namespaces that it may write to: its own, and those of organizations in which it is not only a reader.
        may_write: Whether the token is allowed to write to a repository, ``owner/name``.
    """

    name: str
    owners: frozenset[str]
    may_write: Callable[[str], bool]


class Repository:
    """A model repository on the Hub.

    Args:
        name: ``owner/name``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.private: bool | None = None  # known after `look`
        self._api: HfApi = hub.client()

    @property
    def endpoint(self) -> str:
        """The address of the Hub."""
        return str(self._api.endpoint)

    @property
    def url(self) -> str:
        """The address of its page."""
        return f"{self.endpoint}/{self.name}"

    def account(self) -> Account | Publisher | None:
        """Return who the token belongs to; None without a token.

        Raises:
            StepError: If the Hub rejects the token or issues none, or cannot be reached.
        """
        if not self._call(get_token):
            return None
        resource = hub.resource()
        if resource:
            return Publisher(resource)
        answer = self._call(self._api.whoami)
        try:
            return _account(answer)
        except (KeyError, TypeError, AttributeError) as error:
            raise StepError(
                f"{self.endpoint}: the response about your account is not that of a Hub"
            ) from error

    def look(self) -> RemoteState:
        """Return the current state of its main branch; an empty state if the repository does not exist or is hidden."""
        try:
            info = self._call(lambda: self._api.model_info(self.name))
        except StepError as error:
            if _is_absent(error):
                self.private = None
                return RemoteState(None, {}, lambda name, limit: self._read("main", name, limit, None))
            raise
        self.private = bool(info.private)
        head = str(info.sha)
        files = self.files(head)
        return RemoteState(head, files, lambda name, limit: self._read(head, name, limit, files[name]))

    def files(self, revision: str) -> dict[str, RemoteFile]:
        """Return the files of a revision, by name."""
        what = f"hub: {self.name}@{revision}"

        def request() -> dict[str, RemoteFile]:
            tree = self._api.list_repo_tree(self.name, recursive=True, revision=revision)
            try:
                files = [hub.remote_file(entry, what) for entry in tree if isinstance(entry, RepoFile)]
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError("the response is not that of a Hub") from error
            return {file.name: file for file in files}

        return self._call(request)

    def create(self, *, private: bool) -> None:
        """Create the repository, unless it exists."""
        self._call(lambda: self._api.create_repo(self.name, private=private, exist_ok=True))

    def commit(
        self, files: Iterable[LocalFile], deleted: Iterable[str], parent: str | None, message: str, about: str
    ) -> str:
        """Make one commit on the main branch, and return its id. Contents that the Hub already has are not sent.

        Raises:
            MovedError: If the head is no longer ``parent``.
            UnansweredError: If the Hub did not answer the request, or answered that it is busy.
            StepError: If the Hub refuses.
        """
        additions = [_addition(file) for file in files]
        for batch in _batches(additions):
            self._call(lambda batch=batch: self._upload(batch))  # type: ignore[misc]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *additions,
            *(CommitOperationDelete(name, is_folder=False) for name in deleted),
        ]
        try:
            commit_info = self._api.create_commit(
                self.name,
                operations,
                commit_message=message,
                commit_description=about,
                parent_commit=parent,
                revision="main",
            )
        except hub.FAILURES as error:
            raise self._refused(error) from error
        return str(commit_info.oid)

    def _upload(self, additions: list[CommitOperationAdd]) -> None:
        """Send the large files. Raises the original error, which the client wraps, so that a refusal can be recognized."""
        try:
            self._api.preupload_lfs_files(self.name, additions, revision="main", gitignore_content=ALL_FILES)
        except RuntimeError as error:
            if error.__cause__:
                raise error.__cause__ from None
            raise

    def _refused(self, error: BaseException) -> StepError:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in MOVED_STATUS:
            return MovedError(f"{self.name}: someone else has committed in the meantime")
        wait_s = hub.requested_wait_s(error) or 0.0
        if hub.is_transient(error) and wait_s <= hub.MAX_WAIT_S:
            return UnansweredError(f"{self.name}: {_explain(error, self.name)}", wait_s)
        return StepError(f"{self.name}: {_explain(error, self.name)}")

    def tags(self) -> dict[str, str]:
        """Return the commit of each tag, by the tag's name."""
        refs = self._call(lambda: self._api.list_repo_refs(self.name))
        return {tag.name: tag.target_commit for tag in refs.tags}

    def tag(self, name: str, commit: str) -> None:
        """Tag a commit, unless a tag of this name exists, at any commit."""
        self._call(lambda: self._api.create_tag(self.name, tag=name, revision=commit, exist_ok=True))

    def card_problem(self, card: str) -> str | None:
        """Return the Hub's objection to a model card's front matter; None if it has none."""
        try:
            self._call(lambda: ModelCard(card).validate())
        except StepError as error:
            cause = error.__cause__.__cause__ if error.__cause__ else None
            if isinstance(cause, HfHubHTTPError) or not isinstance(cause, ValueError):
                raise
            return hub.redact(str(cause))
        return None

    def _read(self, revision: str, name: str, limit: int, file: RemoteFile | None) -> bytes:
        what = f"{self.name}@{revision}: {name}"
        url = hf_hub_url(self.name, name, revision=revision, endpoint=self.endpoint)
        content, size_bytes = self._call(lambda: hub.read_range(url, 0, limit))
        if size_bytes > limit:
            raise StepError(f"{what}: has {size_bytes:,} bytes, too many for such a file")
        if file is not None and not LocalFile.of(name, content).is_same(file):
            raise StepError(
                f"{what}: was damaged in transfer (git blob {git_blob_id(content)}). Run the command again."
            )
        return content

    def _call(self, call: Callable[[], Result]) -> Result:
        """Send a request that may be repeated. Raises StepError, caused by the SourceError, caused by the client's error."""
        try:
            return hub.persist(call, self.name, self.name)
        except SourceError as error:
            if error.__cause__ is None:
                raise StepError(str(error)) from error
            raise StepError(f"{self.name}: {_explain(error.__cause__, self.name)}") from error


def name_problem(name: str) -> str | None:
    """Return why a name is not valid for a repository; None if it is valid."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        return f"{name!r} is not a valid repository name: {str(error).rstrip('.')}"
    if not re.fullmatch(r"[^/]+/[^/]+", name):
        return f"{name!r} is not a valid repository name: expected `owner/name`"
    return None


def _account(answer: Mapping[str, Any]) -> Account:
    name = str(answer["name"])
    organizations = {
        str(each["name"]) for each in answer.get("orgs", []) if each.get("roleInOrg", "write") != "read"
    }
    token = answer["auth"].get("accessToken") or {}
    role, scoped = token.get("role", "write"), (token.get("fineGrained") or {}).get("scoped", [])

    def may_write(repo: str) -> bool:
        if role != "fineGrained":
            return bool(role != "read")
        return any(
            scope["entity"].get("name") in {repo, repo.partition("/")[0]}
            and "repo.write" in scope["permissions"]
            for scope in scoped
        )

    return Account(name, frozenset({name} | organizations), may_write)


def _batches(additions: list[CommitOperationAdd]) -> Iterator[list[CommitOperationAdd]]:
    """Yield the files in parts of a few minutes. The client sends each part with one token, which may expire."""
    batch: list[CommitOperationAdd] = []
    size_bytes = 0
    for addition in additions:
        size_bytes += addition.upload_info.size
        if batch and size_bytes > BATCH_BYTES:
            yield batch
            batch, size_bytes = [], addition.upload_info.size
        batch.append(addition)
    if batch:
        yield batch


def _addition(file: LocalFile) -> CommitOperationAdd:
    # the client opens large files itself, by their paths
    content = file.content if isinstance(file.content, bytes) else _content(file, file.content)
    addition = CommitOperationAdd(file.name, content)
    addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # the client would read the file to compute it
    return addition


def _content(file: LocalFile, folder: FolderSubject) -> Path | bytes:
    """Return what the client sends: a file that no checksum covers is read here, once."""
    return file.read() if file.name in OUTSIDE_SUMS else folder.path(file.name)


def _is_absent(error: StepError) -> bool:
    cause = error.__cause__.__cause__ if error.__cause__ else None
    return isinstance(cause, RepositoryNotFoundError)


def _explain(error: BaseException, repo: str) -> str:
    """Return a message for the user about a failed write, with a remedy."""
    if isinstance(error, HfHubHTTPError) and not hub.without_token(error):
        detail = hub.server_message(error)
        match error.response.status_code:
            case 403:
                return (
                    f"the Hub refuses it (HTTP 403). Check that your token may write to {repo}, and that the owner has "
                    f"storage left.{_READ_ONLY if hub.resource() else ''}{detail}"
                )
            case 413:
                return (
                    f"the Hub refuses the size (HTTP 413): a file or the whole upload is too large.{detail}"
                )
    return hub.explain(error, repo)
