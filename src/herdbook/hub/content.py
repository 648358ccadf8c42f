"""Contents of files: headers and tensors by range requests, whole files through the cache after a check of their digest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

from herdbook.errors import CheckpointError, DigestMismatchError, SourceError, WrongAnswerError
from herdbook.files import git_blob_id, sha256_file
from herdbook.hub.failure import persist
from herdbook.hub.repository import COMMIT, SHA256, Kind, RemoteFile, check_pin, is_wanted, spelt
from herdbook.hub.transport import ContradictionError, client, read_range, refuse_echo
from herdbook.weights.checkpoint import FIRST_BYTES, MAX_HEADER_BYTES, Span, parse_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A tensor's place in a file on the Hub; `start` and `end` count bytes from the file's beginning.
TensorHeader = Span
RANGE_BYTES = 1 << 24  # of one request for a tensor that is read in pieces


def tensor_headers(repo: str, commit: str, file: str) -> dict[str, TensorHeader]:
    """List the tensors of a safetensors file on the Hub, by range requests that do not download the weights.

    Args:
        repo: ``owner/name``.
        commit: The commit, 40 hexadecimal digits.
        file: The file's name in the repository.

    Returns:
        By name, in the order of the header: dtype, shape and byte range of each tensor.

    Raises:
        SourceError: If the header cannot be read.
        WrongAnswerError: If it is damaged, is over the limit, or does not match the file's size.
    """
    what = f"hub: {repo}@{commit}: {file}"
    check_pin(commit, file, what)

    def read() -> tuple[bytes, int]:
        url = hf_hub_url(repo, file, revision=commit, endpoint=client().endpoint)
        head, size_bytes = read_range(url, 0, FIRST_BYTES)
        stop = 8 + int.from_bytes(head[:8], "little")
        if len(head) < stop <= min(size_bytes, 8 + MAX_HEADER_BYTES):
            head += read_range(url, len(head), stop)[0]
        return head, size_bytes

    head, size_bytes = persist(read, what, repo)
    try:
        return parse_header(head, size_bytes, what)
    except CheckpointError as error:
        raise WrongAnswerError(str(error)) from error


def read_tensor(repo: str, commit: str, file: str, span: TensorHeader) -> bytes:
    """Return one tensor's bytes from a safetensors file on the Hub, by a range request.

    Only the range is read, so the file's digest cannot be checked.

    Args:
        repo: ``owner/name``.
        commit: The commit, 40 hexadecimal digits.
        file: The file's name in the repository.
        span: The tensor's byte range, from ``tensor_headers``.

    Raises:
        SourceError: If it cannot be read.
    """
    what = f"hub: {repo}@{commit}: {file}: {span.name}"
    check_pin(commit, file, what)
    url = hf_hub_url(repo, file, revision=commit, endpoint=client().endpoint)
    if span.start == span.end:
        return b""
    return persist(lambda: read_range(url, span.start, span.end)[0], what, repo)


def stream_tensor(repo: str, commit: str, file: str, span: TensorHeader) -> Iterator[bytes]:
    """Yield one tensor's bytes as ``read_tensor`` does, in pieces, each by a range request of its own.

    If a piece fails, only that piece is requested again. Raises as ``read_tensor`` does.
    """
    for start in range(span.start, span.end, RANGE_BYTES):
        yield read_tensor(
            repo, commit, file, replace(span, start=start, end=min(span.end, start + RANGE_BYTES))
        )


def read_file(repo: str, commit: str, file: str, start: int, stop: int) -> tuple[bytes, int]:
    """Return a file's bytes from ``start`` up to ``stop`` or its end, and its size, both as the Hub serves them.

    Raises:
        GoneError: If the file does not exist.
        SourceError: If it cannot be read.
    """
    what = f"hub: {repo}@{commit}: {file}"
    check_pin(commit, file, what)
    if start == stop == 0:
        stop = 1  # a range cannot be empty, and the size is needed
    url = hf_hub_url(repo, file, revision=commit, endpoint=client().endpoint)
    return persist(lambda: read_range(url, start, stop), what, repo)


def cached(repo: str, commit: str, file: str) -> Path | None:
    """Return a file's path in the local Hugging Face cache, None if it is not in it; no request is sent."""
    check_pin(commit, file, f"hub: {repo}@{commit}: {file}")
    path = try_to_load_from_cache(repo, file, revision=commit)
    return Path(path) if isinstance(path, str) else None


def is_in_cache(path: Path) -> bool:
    """Return whether a file, or the target of a link, is in the Hub's cache, where no file is modified in place."""
    return path.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())


def download(
    repo: str,
    commit: str,
    file: RemoteFile,
    digest: Callable[[Path], str] = sha256_file,
    kind: Kind = "model",
) -> Path:
    """Return a file in the local Hugging Face cache after checking its digest; download it if the cache lacks it.

    No request is sent for a file in the cache. Its content is hashed each time.

    Args:
        repo: ``owner/name``.
        commit: The commit, 40 hexadecimal digits.
        file: The file and its pinned digest.
        digest: Computes the SHA-256 of a large file, for callers that need more about it without reading it twice.
        kind: Whether the repository is that of a model or of a data set.

    Returns:
        The path inside the cache; not to be written to.

    Raises:
        SourceError: If it cannot be downloaded, or is of a kind that is never downloaded.
        DigestMismatchError: If it does not match its pin. A damaged copy is removed from the cache.
    """
    what = f"hub: {spelt(repo, kind)}@{commit}: {file.name}"
    check_pin(commit, file.name, what)
    if not is_wanted(file.name, kind):
        raise SourceError(
            f"{what}: refused: it is neither a safetensors file nor one of the files that belong to a model"
            if kind == "model"
            else f"{what}: refused: it is not a file of documents in a supported format"
        )
    expected = file.sha256 or file.git_blob
    if expected is None:
        raise SourceError(f"{what}: the lock contains no digest of it. Run `herdbook lock`.")
    api = client()
    path = Path(
        persist(
            lambda: api.hf_hub_download(repo, file.name, revision=commit, repo_type=kind),
            what,
            spelt(repo, kind),
        )
    )
    if file.sha256:
        found = digest(path)
    else:
        content = path.read_bytes()
        found = git_blob_id(content)
        try:
            refuse_echo(content)
        except ContradictionError as error:
            raise WrongAnswerError(f"{what}: {error}") from error
    if found != expected:
        raise DigestMismatchError(what, expected, found, _discard(path, f"{kind}s/{repo}", file.name))
    return path


def _discard(path: Path, repo: str, name: str) -> str:
    """Remove a copy with the wrong digest from the cache if it is damaged, and return what to do next.

    A blob in the cache is named after its content. Only a blob that contradicts its own name is damaged and can be removed;
    one that matches it is what the Hub serves, and other programs may need it.
    """
    by_hand = f"`hf cache rm hf://{repo}/{name}`"
    storage = path.parents[len(PurePosixPath(name).parts) + 1]
    blob = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path
    if SHA256.fullmatch(blob.name):
        intact = sha256_file(path) == blob.name
    elif COMMIT.fullmatch(blob.name):
        intact = git_blob_id(path.read_bytes()) == blob.name
    else:
        intact = False
    if intact:
        return (
            "The cached copy is intact, so the Hub serves another file than the pinned one. Find out why before you trust "
            f"it; {by_hand} removes it, `herdbook lock` pins the new file."
        )
    payload = path.resolve()  # is not the blob itself where the client shares blobs between repositories
    if blob.parent != storage / "blobs" or storage.parent.resolve() not in payload.parents:
        return f"The cached copy may be damaged. Remove it with {by_hand}, or delete {path}, and try again."
    try:
        for part in (path, blob, payload):
            part.unlink(missing_ok=True)
    except OSError as error:
        return f"The cached copy is damaged and could not be removed ({error.strerror}): delete {payload} and try again."
    return (
        "The file was damaged during the download or on this disk. The damaged copy has been removed from the cache: try "
        f"again to download it. If that does not help, {by_hand} removes what remains of it."
    )
