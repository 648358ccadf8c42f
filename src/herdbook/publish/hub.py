"""A repository on the Hub, for writing: who may, what is there, one commit, one tag.

A commit is asked for once, with its parent: sent twice it could be made twice. Whether an answer that got lost stood for
a commit is told by looking again. All else may be asked again, and is.
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
from herdbook.publish.local import LocalFile
from herdbook.publish.proposal import RemoteState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from herdbook.hub import RemoteFile

Result = TypeVar("Result")
ALL_FILES = (
    "# nothing is left out\n"  # answers for a .gitignore in the repository, which would drop files in silence
)
MOVED_STATUS = (409, 412)


class AgainError(StepError):
    """A commit that was asked for may not be made; looking again will tell.

    Args:
        message: What a person reads.
        wait_s: For how many seconds the Hub asks to be left alone before.
    """

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class MovedError(AgainError):
    """The repository has another head than the one that the commit was made for."""


class UnansweredError(AgainError):
    """Nobody knows whether the Hub has made the commit."""


@dataclass(frozen=True)
class Account:
    """Who publishes.

    Args:
        name: The account's name.
        owners: Under whose names it may write: its own, and organizations in which it is not only a reader.
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
        self.private: bool | None = None  # known after it was looked at
        self._api: HfApi = hub.client()

    @property
    def endpoint(self) -> str:
        """The Hub that has it."""
        return str(self._api.endpoint)

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self.endpoint}/{self.name}"

    def account(self) -> Account | None:
        """Return whose token this is; None if there is no token.

        Raises:
            StepError: If the Hub does not know the token, or cannot be asked.
        """
        if not get_token():
            return None
        answer = self._ask(self._api.whoami)
        try:
            return _account(answer)
        except (KeyError, TypeError, AttributeError) as error:
            raise StepError(f"{self.endpoint}: does not say who you are like a Hub does") from error

    def look(self) -> RemoteState:
        """Return what its main branch holds now; nothing if there is no such repository, or none that one may see."""
        try:
            info = self._ask(lambda: self._api.model_info(self.name))
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

        def ask() -> dict[str, RemoteFile]:
            tree = self._api.list_repo_tree(self.name, recursive=True, revision=revision)
            try:
                found = [hub.remote_file(entry, what) for entry in tree if isinstance(entry, RepoFile)]
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError("the answer is not a Hub's") from error
            return {file.name: file for file in found}

        return self._ask(ask)

    def create(self, *, private: bool) -> None:
        """Make the repository; nothing happens if it is there."""
        self._ask(lambda: self._api.create_repo(self.name, private=private, exist_ok=True))

    def commit(
        self, files: Iterable[LocalFile], deleted: Iterable[str], parent: str | None, message: str, about: str
    ) -> str:
        """Make one commit on the main branch, and return its id. Contents that are there already are not sent.

        Raises:
            MovedError: If the head is not ``parent`` any more.
            UnansweredError: If no answer came after the commit was asked for, or that the Hub is busy.
            StepError: If the Hub refuses.
        """
        additions = [_addition(file) for file in files]
        self._ask(lambda: self._upload(additions))
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *additions,
            *(CommitOperationDelete(name, is_folder=False) for name in deleted),
        ]
        try:
            made = self._api.create_commit(
                self.name,
                operations,
                commit_message=message,
                commit_description=about,
                parent_commit=parent,
                revision="main",
            )
        except hub.FAILURES as error:
            raise self._refused(error) from error
        return str(made.oid)

    def _upload(self, additions: list[CommitOperationAdd]) -> None:
        """Send the large files; raises what went wrong, which the client wraps, so that a refusal is told from a failure."""
        try:
            self._api.preupload_lfs_files(self.name, additions, revision="main", gitignore_content=ALL_FILES)
        except RuntimeError as error:
            if error.__cause__:
                raise error.__cause__ from None
            raise

    def _refused(self, error: BaseException) -> StepError:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in MOVED_STATUS:
            return MovedError(f"{self.name}: somebody else has committed meanwhile")
        wait_s = hub.asked_to_wait(error) or 0.0
        if hub.is_transient(error) and wait_s <= hub.MAX_WAIT_S:
            return UnansweredError(f"{self.name}: {_explain(error, self.name)}", wait_s)
        return StepError(f"{self.name}: {_explain(error, self.name)}")

    def tags(self) -> dict[str, str]:
        """Return its tags: by name, what each points to."""
        refs = self._ask(lambda: self._api.list_repo_refs(self.name))
        return {tag.name: tag.target_commit for tag in refs.tags}

    def tag(self, name: str, commit: str) -> None:
        """Tag a commit; nothing happens if there is such a tag already, of whatever commit."""
        self._ask(lambda: self._api.create_tag(self.name, tag=name, revision=commit, exist_ok=True))

    def card_problem(self, card: str) -> str | None:
        """Return what the Hub has against a model card's front matter, if anything."""
        try:
            self._ask(lambda: ModelCard(card).validate())
        except StepError as error:
            cause = error.__cause__.__cause__ if error.__cause__ else None
            if isinstance(cause, HfHubHTTPError) or not isinstance(cause, ValueError):
                raise
            return hub.redact(str(cause))
        return None

    def _read(self, revision: str, name: str, limit: int, file: RemoteFile | None) -> bytes:
        what = f"{self.name}@{revision}: {name}"
        url = hf_hub_url(self.name, name, revision=revision, endpoint=self.endpoint)
        content, size_bytes = self._ask(lambda: hub.read_range(url, 0, limit))
        if size_bytes > limit:
            raise StepError(f"{what}: has {size_bytes:,} bytes, more than such a file should have")
        if file is not None and not LocalFile.of(name, content).is_same(file):
            raise StepError(f"{what}: came damaged ({git_blob_id(content)}). Run again.")
        return content

    def _ask(self, call: Callable[[], Result]) -> Result:
        """Ask something that may be asked again. Raises StepError; its cause is the SourceError, whose cause is the client's."""
        try:
            return hub.persist(call, self.name, self.name)
        except SourceError as error:
            if error.__cause__ is None:
                raise StepError(str(error)) from error
            raise StepError(f"{self.name}: {_explain(error.__cause__, self.name)}") from error


def name_problem(name: str) -> str | None:
    """Return why something cannot be the name of a repository, if it cannot."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        return f"{name!r} is no name of a repository: {str(error).rstrip('.')}"
    if not re.fullmatch(r"[^/]+/[^/]+", name):
        return f"{name!r} is no name of a repository: `owner/name` is wanted"
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


def _addition(file: LocalFile) -> CommitOperationAdd:
    addition = CommitOperationAdd(file.name, file.content)
    addition.upload_info.sha256 = bytes.fromhex(
        file.sha256
    )  # known: the client need not read the file for it
    return addition


def _is_absent(error: StepError) -> bool:
    cause = error.__cause__.__cause__ if error.__cause__ else None
    return isinstance(cause, RepositoryNotFoundError)


def _explain(error: BaseException, repo: str) -> str:
    """Return what happened to somebody who writes, and what to do."""
    if isinstance(error, HfHubHTTPError):
        says = hub.server_says(error)
        match error.response.status_code:
            case 403:
                return (
                    f"the Hub forbids it (HTTP 403). Does your token have the right to write to {repo}, and is there room "
                    f"left in the owner's storage?{says}"
                )
            case 413:
                return f"the Hub does not take so much (HTTP 413): a file or the whole is too large.{says}"
    return hub.explain(error, repo)
