"""Single files that are no part of a model: of a data set on the Hub at a commit, or of any server."""

from __future__ import annotations

import hashlib

from huggingface_hub import hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from herdbook.errors import DigestMismatchError, SourceError
from herdbook.files import git_blob_id
from herdbook.hub.failure import FAILURES, persist, redact
from herdbook.hub.repository import RemoteFile, resolve, spelt
from herdbook.hub.transport import client, read_public, read_range, refuse_echo


def file_of_data_set(repo: str, revision: str | None, file: str) -> tuple[str, RemoteFile]:
    """Return the commit of a data set on the Hub, and one of its files.

    Args:
        repo: ``owner/name``.
        revision: A branch, tag or commit; None for the main branch.
        file: The name of the file.

    Raises:
        SourceError: If the data set, the revision or the file does not exist.
    """
    found = resolve(repo, revision, "dataset")
    for remote in found.files:
        if remote.name == file:
            return found.commit, remote
    raise SourceError(f"hub: {spelt(repo, 'dataset')}@{found.commit[:8]}: has no file {file}")


def read_of_data_set(repo: str, commit: str, file: RemoteFile, limit_bytes: int) -> bytes:
    """Return a file of a data set on the Hub, after checking its digest.

    Raises:
        SourceError: If it cannot be read, or is longer than the limit.
        DigestMismatchError: If it is not the file that the Hub describes.
    """
    what = f"hub: {spelt(repo, 'dataset')}@{commit}: {file.name}"
    if file.size_bytes > limit_bytes:
        raise SourceError(
            f"{what}: refused: it has {file.size_bytes:,} bytes, over the limit of {limit_bytes:,}"
        )
    url = hf_hub_url(repo, file.name, revision=commit, repo_type="dataset", endpoint=client().endpoint)
    content = persist(lambda: read_range(url, 0, limit_bytes)[0], what, spelt(repo, "dataset"))
    if not matches(content, file):
        found = hashlib.sha256(content).hexdigest() if file.sha256 else git_blob_id(content)
        raise DigestMismatchError(what, file.sha256 or str(file.git_blob), found, "Try again.")
    return content


def matches(content: bytes, file: RemoteFile) -> bool:
    """Return whether a content is that of a file on the Hub."""
    if file.sha256:
        return hashlib.sha256(content).hexdigest() == file.sha256
    return git_blob_id(content) == file.git_blob


def read_url(url: str, limit_bytes: int) -> bytes:
    """Return what a server has at an address. No token is sent.

    Raises:
        SourceError: If it cannot be read, or is longer than the limit.
    """
    try:
        content = read_public(url, limit_bytes)
        refuse_echo(content)
    except OfflineModeIsEnabled as error:
        raise SourceError(f"{url}: offline mode is on. Run once without HF_HUB_OFFLINE.") from error
    except HfHubHTTPError as error:
        raise SourceError(f"{url}: the server answered HTTP {error.response.status_code}") from error
    except FAILURES as error:
        raise SourceError(f"{url}: cannot be read: {redact(str(error)) or type(error).__name__}") from error
    return content
