"""The Hub, for reading: what a name resolves to, what tensors a file holds, and files that are what was pinned.

The only module that talks to the Hub. Upstream is untrusted, and so is the way from there to here: names, headers and
contents are checked, since `huggingface_hub` compares the size of what it downloads but not its digest. Files go into
the ordinary Hugging Face cache, so nothing that a person already has is downloaded again.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

from huggingface_hub import (
    HfApi,
    constants,
    get_session,
    get_token,
    hf_hub_url,
    hf_raise_for_status,
    try_to_load_from_cache,
)
from huggingface_hub import ModelInfo as HubModelInfo
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # its lazy exports
    build_hf_headers,
    httpx,
    parse_ratelimit_headers,
    validate_repo_id,
)

from herdbook import __version__
from herdbook.checkpoint import INDEX_NAME, MAX_HEADER_BYTES, Span, parse_header
from herdbook.errors import CheckpointError, DigestMismatchError, GoneError, SourceError
from herdbook.files import git_blob_id, sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Result = TypeVar("Result")

# A tensor's place in a file on the Hub; `start` and `end` count bytes from the file's beginning.
TensorHeader = Span

RANGE_BYTES = 1 << 24  # of a tensor that is read in pieces
FIRST_BYTES = 1 << 17  # holds the whole header of a 7B model's shard, so that one request is enough
WAITS_S = (1.0, 4.0, 16.0)  # between tries; the client's own tries (five per request) come on top
MAX_WAIT_S = 300.0  # if the Hub asks for more patience than this, a person should know
# A whole answer may take so long, and so much longer for each byte: a server that never ends shall not hold us for ever.
ANSWER_S = 60.0
SLOWEST_BYTES_S = 50_000
MAX_ANSWER_BYTES = 64_000_000  # of a repository's description
MAX_REFUSAL_BYTES = 1 << 16
MAX_SKIPPED_BYTES = 1 << 24  # that are read and thrown away where a server knows no ranges

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SIDE_NAMES = ("README.md", "chat_template.jinja", "merges.txt", "tokenizer.model", "vocab.txt")
_LICENSE = re.compile(r"licen[cs]e[\w-]*(\.(txt|md|rst|pdf))?", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBERED = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_TOKEN = re.compile(r"hf_\w{6,}")


class EndlessAnswerError(Exception):
    """An answer took longer than any honest one would."""


_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
# What the client raises. RuntimeError comes from its Xet transfer, ValueError from answers that make no sense.
FAILURES = (httpx.HTTPError, OSError, EntryNotFoundError, EndlessAnswerError, RuntimeError, ValueError)


class Traffic:
    """What came from the Hub in this process so far, beside what ``download`` put into the cache.

    Attributes:
        received_bytes: Bytes of answers' bodies.
        requests: How many were asked; one that is sent on to another host counts once.
    """

    def __init__(self) -> None:
        self.received_bytes = self.requests = 0
        self._lock = Lock()

    def count(self, received_bytes: int, requests: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.received_bytes += received_bytes
            self.requests += requests


TRAFFIC = Traffic()


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Args:
        name: Its path inside the repository.
        size_bytes: Its size.
        sha256: SHA-256 of its content; the Hub knows it of large files only.
        git_blob: The id that git gives to its content; of small files only, since git has no more than a pointer to
            the others.
    """

    name: str
    size_bytes: int
    sha256: str | None
    git_blob: str | None


@dataclass(frozen=True)
class RemoteRepo:
    """A repository at one commit.

    Args:
        repo: ``owner/name`` as the Hub spells it now; differs from what was asked if the repository was renamed.
        commit: The commit, 40 hexadecimal digits.
        files: Its files, sorted by name.
        license: What the card names as licence.
        base_models: What the card names as parents.
        gated: How access is granted, or False if everybody has it.
    """

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    license: str | None
    base_models: tuple[str, ...]
    gated: Literal["auto", "manual", False]


def resolve(repo: str, revision: str | None) -> RemoteRepo:
    """Ask the Hub what a repository holds, with one request.

    Args:
        repo: ``owner/name``.
        revision: A branch, tag or commit; None for the main branch.

    Raises:
        GoneError: If the repository has no such revision.
        SourceError: If it cannot be had, or if the answer contradicts itself or names files outside the repository.
    """
    what = f"hub: {repo}@{revision}" if revision else f"hub: {repo}"

    def ask() -> Any:
        validate_repo_id(repo)
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        content = _within(
            ANSWER_S, lambda: _read_whole(f"{client().endpoint}/api/models/{repo}{at}?blobs=True")
        )
        try:
            return HubModelInfo(**json.loads(content))  # type: ignore[no-untyped-call]
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("the answer is not a Hub's") from error

    info = persist(ask, what, repo)
    commit = str(info.sha)
    if not _COMMIT.fullmatch(commit):
        raise SourceError(f"{what}: the Hub names {commit!r} as its commit, which is none")
    if revision and _COMMIT.fullmatch(revision) and commit != revision:
        raise SourceError(f"{what}: the Hub answers with another commit, {commit}")
    files = sorted(
        (remote_file(sibling, what) for sibling in info.siblings or ()), key=lambda file: file.name
    )
    card = info.card_data.to_dict() if info.card_data else {}
    gated: Literal["auto", "manual", False] = "manual" if info.gated else False
    return RemoteRepo(
        repo=str(info.id),
        commit=commit,
        files=tuple(files),
        license=", ".join(_strings(card.get("license"))) or None,
        base_models=tuple(_strings(card.get("base_model"))),
        gated="auto" if info.gated == "auto" else gated,
    )


def tensor_headers(repo: str, commit: str, file: str) -> dict[str, TensorHeader]:
    """Read which tensors a safetensors file on the Hub holds, by range requests that leave the weights where they are.

    Args:
        repo: ``owner/name``.
        commit: The commit, 40 hexadecimal digits.
        file: The file's name in the repository.

    Returns:
        By name, in the order of the header: dtype, shape and place of each tensor.

    Raises:
        SourceError: If the header cannot be had, is damaged, claims more than 100 MB, or does not fit the file's size.
    """
    what = f"hub: {repo}@{commit}: {file}"
    _check_pin(commit, file, what)

    def read() -> tuple[bytes, int]:
        url = hf_hub_url(repo, file, revision=commit, endpoint=client().endpoint)
        head, size_bytes = read_range(url, 0, FIRST_BYTES)
        stop = 8 + int.from_bytes(head[:8], "little")
        if len(head) < stop <= min(size_bytes, 8 + MAX_HEADER_BYTES):
            head += read_range(url, len(head), stop)[0]
        return head, size_bytes

    head, size_bytes = persist(read, what, repo)
    try:
        return parse_foreign_header(head, size_bytes, what)
    except CheckpointError as error:
        raise SourceError(str(error)) from error


def parse_foreign_header(head: bytes, size_bytes: int, what: str) -> dict[str, TensorHeader]:
    """Parse the start of a safetensors file as ``parse_header`` does, whoever wrote it.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        spans = parse_header(head, size_bytes, what)
    except (TypeError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{what}: its safetensors header is damaged: {error}") from error
    for span in spans.values():
        # JSON's 1.0 and true pass for integers in comparisons, but not where such a number is used later.
        if any(type(number) is not int for number in (span.start, span.end, *span.shape)):
            raise CheckpointError(f"{what}: its safetensors header is damaged at tensor {span.name}")
    return spans


def read_tensor(repo: str, commit: str, file: str, span: TensorHeader) -> bytes:
    """Return one tensor's bytes out of a safetensors file on the Hub, by a range request.

    Only the range is seen, so nothing can be compared with the file's digest.

    Args:
        repo: ``owner/name``.
        commit: The commit, 40 hexadecimal digits.
        file: The file's name in the repository.
        span: Where the tensor lies, as ``tensor_headers`` says.

    Raises:
        SourceError: If it cannot be had.
    """
    what = f"hub: {repo}@{commit}: {file}: {span.name}"
    _check_pin(commit, file, what)
    url = hf_hub_url(repo, file, revision=commit, endpoint=client().endpoint)
    if span.start == span.end:
        return b""
    return persist(lambda: read_range(url, span.start, span.end)[0], what, repo)


def stream_tensor(repo: str, commit: str, file: str, span: TensorHeader) -> Iterator[bytes]:
    """Yield one tensor's bytes as ``read_tensor`` does, in pieces, each by a range request of its own.

    A piece that fails is asked for again, those before it are not. Raises as ``read_tensor`` does.
    """
    for start in range(span.start, span.end, RANGE_BYTES):
        yield read_tensor(
            repo, commit, file, replace(span, start=start, end=min(span.end, start + RANGE_BYTES))
        )


def read_file(repo: str, commit: str, file: str, start: int, stop: int) -> tuple[bytes, int]:
    """Return a file's bytes from ``start`` up to ``stop`` or its end, and its size, both as the Hub serves them.

    Raises:
        GoneError: If there is no such file.
        SourceError: If it cannot be had.
    """
    what = f"hub: {repo}@{commit}: {file}"
    _check_pin(commit, file, what)
    if start == stop == 0:
        stop = 1  # of an empty file the size is asked
    url = hf_hub_url(repo, file, revision=commit, endpoint=client().endpoint)
    return persist(lambda: read_range(url, start, stop), what, repo)


def cached(repo: str, commit: str, file: str) -> Path | None:
    """Return a file's path in the local Hugging Face cache if it is there as a whole; nothing is asked of the Hub."""
    _check_pin(commit, file, f"hub: {repo}@{commit}: {file}")
    found = try_to_load_from_cache(repo, file, revision=commit)
    return Path(found) if isinstance(found, str) else None


def holds(path: Path) -> bool:
    """Say whether a file, or what it is a link to, lies in the Hub's cache, in which nothing is written to in place."""
    return path.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())


def download(repo: str, commit: str, file: RemoteFile) -> Path:
    """Return a file in the local Hugging Face cache, downloading it if it is not there, after comparing its digest.

    A file that is in the cache causes no request. Its content is hashed each time.

    Args:
        repo: ``owner/name``.
        commit: The commit, 40 hexadecimal digits.
        file: The file and its pinned digest.

    Returns:
        The path inside the cache; not to be written to.

    Raises:
        SourceError: If it cannot be had, or is of no kind that is ever wanted.
        DigestMismatchError: If it is not what was pinned. A copy that was damaged is removed from the cache.
    """
    what = f"hub: {repo}@{commit}: {file.name}"
    _check_pin(commit, file.name, what)
    if not is_wanted(file.name):
        raise SourceError(
            f"{what}: is neither weights in safetensors nor a file that goes with them; refused"
        )
    expected = file.sha256 or file.git_blob
    if expected is None:
        raise SourceError(f"{what}: has no pinned digest to compare with. Run `herdbook lock`.")
    api = client()
    path = Path(persist(lambda: api.hf_hub_download(repo, file.name, revision=commit), what, repo))
    found = sha256_file(path) if file.sha256 else git_blob_id(path.read_bytes())
    if found != expected:
        raise DigestMismatchError(what, expected, found, _discard(path, repo, file.name))
    return path


def weights_of(
    files: Iterable[RemoteFile], index: bytes | None = None, what: str = "hub"
) -> tuple[RemoteFile, ...]:
    """Return the safetensors files that make up a model, sorted by name.

    Repositories often hold the same weights twice (``consolidated.safetensors``); only what the index names is taken,
    or ``model.safetensors`` where there is no index.

    Args:
        files: All files of the repository.
        index: Content of its index. Without it the shards are told by their names, ``model-00001-of-00002.safetensors``.
        what: How errors call the repository.

    Raises:
        SourceError: If there are none, if they are pickles, or if some are missing.
    """
    by_name = {file.name: file for file in files}
    for name in by_name:
        _check_name(name, what)
    if index is not None:
        try:
            wanted = {str(name) for name in json.loads(index)["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SourceError(f"{what}: {INDEX_NAME} is damaged: {error!r}") from error
    elif INDEX_NAME in by_name:
        counts = {match[2] for match in map(_NUMBERED.fullmatch, by_name) if match}
        if len(counts) > 1:
            raise SourceError(
                f"{what}: there are several sets of shards; {INDEX_NAME} must be read to tell which is meant"
            )
        wanted = {
            f"model-{i:05}-of-{count}.safetensors" for count in counts for i in range(1, int(count) + 1)
        }
    else:
        wanted = {"model.safetensors"} & by_name.keys()
    foreign = sorted(name for name in wanted if not name.endswith(".safetensors"))
    if foreign:
        raise SourceError(f"{what}: {INDEX_NAME} names {foreign[0]!r}, which is no safetensors file; refused")
    missing = sorted(wanted - by_name.keys())
    if missing:
        raise SourceError(f"{what}: {missing[0]} belongs to the model's weights but is not there")
    if not wanted and any(name.endswith(PICKLE_SUFFIXES) for name in by_name):
        raise SourceError(
            f"{what}: has its weights only as pickles, which can run code when they are opened; refused. Load "
            "them in a sandbox without network, save them with save_pretrained(folder, safe_serialization=True) and "
            "name that folder in the recipe; or have the Hub's safetensors conversion space open a pull request, and "
            "name its revision."
        )
    if not wanted:
        raise SourceError(f"{what}: has no weights in safetensors")
    return tuple(by_name[name] for name in sorted(wanted))


def is_wanted(name: str) -> bool:
    """Return whether a file of this name is of a kind that is ever downloaded: weights, or data that goes with them."""
    last = PurePosixPath(name).name
    return (
        last.endswith((".safetensors", ".json")) or last in SIDE_NAMES or _LICENSE.fullmatch(last) is not None
    )


def client() -> HfApi:
    """Return the client. The one place where it is made, with the endpoint that is configured when it is called."""
    return HfApi(endpoint=constants.ENDPOINT, library_name="herdbook", library_version=__version__)


def remote_file(sibling: Any, what: str) -> RemoteFile:
    """Return what the client's description of a file says. Raises SourceError if it says too little, or leads out."""
    name = _check_name(str(sibling.rfilename), what)
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    git_blob = None if sibling.lfs else sibling.blob_id
    plausible = _SHA256.fullmatch(str(sha256)) if sibling.lfs else _COMMIT.fullmatch(str(git_blob))
    if not isinstance(sibling.size, int) or sibling.size < 0 or not plausible:
        raise SourceError(f"{what}: the Hub gives no size and digest of {name}")
    return RemoteFile(name, sibling.size, sha256, git_blob)


def _strings(value: object) -> list[str]:
    """Return a card's entry, which may be one string or several, as a list; whatever is no string is left out."""
    return [
        item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str) and item
    ]


def _check_name(name: str, what: str) -> str:
    parts = name.split("/")
    if (
        any(part in {"", ".", ".."} for part in parts)
        or "\\" in name
        or PureWindowsPath(name).drive
        or any(ord(letter) < 32 or ord(letter) == 127 for letter in name)
    ):
        raise SourceError(f"{what}: the file name {name!r} leads out of its folder; refused")
    return name


def _check_pin(commit: str, name: str, what: str) -> None:
    _check_name(name, what)
    if not _COMMIT.fullmatch(commit):
        raise SourceError(f"{what}: {commit!r} is no commit of 40 hexadecimal digits. Run `herdbook lock`.")


def read_range(url: str, start: int, stop: int) -> tuple[bytes, int]:
    """Return the bytes of a file from ``start`` up to ``stop`` or its end, and the size of the whole file.

    A server that knows no ranges answers with the whole file; no more of it is read than was asked for.

    Raises:
        EndlessAnswerError: If the answer takes too long.
        ValueError: If the answer contradicts itself or what was asked.
    """
    return _within(ANSWER_S + (stop - start) / SLOWEST_BYTES_S, lambda: _read_range(url, start, stop))


def _read_range(url: str, start: int, stop: int) -> tuple[bytes, int]:
    with _open(url, {"Range": f"bytes={start}-{stop - 1}"}) as response:
        span = response.headers.get("Content-Range", "")
        if response.status_code == 416:
            return b"", int(span.removeprefix("bytes */"))
        _raise_for_status(response)
        if response.status_code == 206:
            size_bytes, skipped = int(span.rpartition("/")[2]), 0
            if span != f"bytes {start}-{min(stop, size_bytes) - 1}/{size_bytes}":
                raise ValueError(f"asked for bytes {start} to {stop - 1}, the answer has {span[:80]!r}")
        else:
            size_bytes, skipped = int(response.headers.get("Content-Length", "")), start
        if skipped > MAX_SKIPPED_BYTES:
            raise ValueError("the server knows no ranges")
        expected = max(min(stop, size_bytes) - start, 0) + skipped
        data = _read_body(response, expected)
    if len(data) < expected:
        raise OSError(f"{len(data)} bytes came, {expected} were asked for")
    return bytes(data[skipped:expected]), size_bytes


def _read_whole(url: str) -> bytes:
    """Return a whole answer, which has a size that is no secret. Raises ValueError if it is larger than any honest one."""
    with _open(url, {}) as response:
        _raise_for_status(response)
        data = _read_body(response, MAX_ANSWER_BYTES + 1)
    if len(data) > MAX_ANSWER_BYTES:
        raise ValueError(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
    return bytes(data)


def _open(url: str, headers: dict[str, str]) -> Any:
    """Ask; the answer's body is not read yet, and comes as it is sent, not unpacked."""
    sent = build_hf_headers(library_name="herdbook", library_version=__version__)
    sent |= {**headers, "Accept-Encoding": "identity"}
    TRAFFIC.count(0, requests=1)
    return get_session().stream("GET", url, headers=sent, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)


def _read_body(response: Any, limit: int) -> bytearray:
    """Return a body's first bytes, ``limit`` of them if there are so many, and a few more at most."""
    data = bytearray()
    if limit:
        for piece in response.iter_raw(1 << 16):
            data += piece
            TRAFFIC.count(len(piece))
            if len(data) >= limit:
                break
    return data


def _raise_for_status(response: Any) -> None:
    """Raise as the client does for a refusal, of which it would read whatever comes."""
    if response.is_error:
        body = _read_body(response, MAX_REFUSAL_BYTES)
        kept = {
            name: value
            for name, value in response.headers.items()
            if name.lower() not in {"content-encoding", "content-length", "transfer-encoding"}
        }
        response = httpx.Response(
            response.status_code,
            headers=kept,
            content=bytes(body[:MAX_REFUSAL_BYTES]),
            request=response.request,
        )
    hf_raise_for_status(response)


def _within(limit_s: float, call: Callable[[], Result]) -> Result:
    """Call, and give up after a while. What is given up may linger until the process ends; it holds no other thread.

    The client's own timeout is about each piece, so that a byte now and then would keep it for ever.

    Raises:
        EndlessAnswerError: If it took too long.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = Thread(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise EndlessAnswerError
    return results[0]


def _discard(path: Path, repo: str, name: str) -> str:
    """Remove a copy with the wrong digest from the cache if it is damaged, and return what to do next.

    A blob in the cache is named after its content. Only one that contradicts its own name is damaged for everybody and
    may go; one that agrees with it is what the Hub serves, and other programs may be right to want it.
    """
    by_hand = f"`hf cache rm hf://models/{repo}/{name}`"
    storage = path.parents[len(PurePosixPath(name).parts) + 1]
    blob = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path
    if _SHA256.fullmatch(blob.name):
        intact = sha256_file(path) == blob.name
    elif _COMMIT.fullmatch(blob.name):
        intact = git_blob_id(path.read_bytes()) == blob.name
    else:
        intact = False
    if intact:
        return (
            "The cached copy is intact, so the Hub serves another file than the one that was pinned. Do not trust it "
            f"before you know why; {by_hand} removes it, `herdbook lock` pins what there is now."
        )
    payload = path.resolve()  # is not the blob itself where the client shares blobs between repositories
    if blob.parent != storage / "blobs" or storage.parent.resolve() not in payload.parents:
        return f"The cached copy may be damaged. Remove it with {by_hand}, or delete {path}, and run again."
    try:
        for part in (path, blob, payload):
            part.unlink(missing_ok=True)
    except OSError as error:
        return f"The cached copy is damaged and could not be removed ({error.strerror}): delete {payload} and run again."
    return (
        "It was damaged on its way or on this disk. The bad copy has been removed from the cache: run again to download "
        f"it anew. If that does not help, {by_hand} removes whatever is left of it."
    )


def persist(call: Callable[[], Result], what: str, repo: str) -> Result:
    """Call the Hub, and again after failures that pass by themselves.

    Raises:
        GoneError: If the repository answers, but has no such revision or file.
        SourceError: If it does not work out for another reason; says what happened and what to do.
    """
    for wait_s in (*WAITS_S, None):
        try:
            return call()
        except FAILURES as error:
            asked_s = asked_to_wait(error)
            if wait_s is None or not is_transient(error) or (asked_s or 0) > MAX_WAIT_S:
                gone = isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError)
                kind = GoneError if gone else SourceError
                raise kind(f"{what}: {explain(error, repo)}") from error
            time.sleep(max(wait_s, asked_s or 0))
    raise AssertionError  # the last round returns or raises


def is_transient(error: BaseException) -> bool:
    """Return whether a failure may pass by itself."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT_STATUS
    if isinstance(
        error, OfflineModeIsEnabled | LocalEntryNotFoundError | FileMetadataError | HFValidationError
    ):
        return False  # of these, the client has tried again by itself whatever is worth it
    if isinstance(error, OSError):
        return error.errno is None or isinstance(
            error, ConnectionError | TimeoutError
        )  # else the disk, not the net
    return isinstance(
        error, httpx.TimeoutException | httpx.NetworkError | httpx.RemoteProtocolError | RuntimeError
    )


def asked_to_wait(error: BaseException) -> float | None:
    """Return how many seconds the Hub asks to wait before the next request, if it says so."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    with suppress(KeyError, ValueError):  # it may also be a date, which is of no use if clocks differ
        return float(headers["Retry-After"])
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else None


def explain(error: BaseException, repo: str) -> str:
    """Return what happened and what to do, for people. Never quotes a URL (it may be signed) or the token."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # the client's own text is the same for all causes
    endpoint = str(client().endpoint)
    match error:
        case OfflineModeIsEnabled():
            return "is not on this machine, and offline mode is on. Run once with a network and without HF_HUB_OFFLINE."
        case GatedRepoError():
            return (
                f"its owner has gated it. Accept the terms on {endpoint}/{repo}, log in with `hf auth login`, and run "
                "again; where the owner grants access by hand, wait for that first." + server_says(error)
            )
        case EndlessAnswerError():
            return f"{endpoint} began to answer and never ended"
        case RevisionNotFoundError():
            return "the repository has no such revision. Is it spelled right, or was it deleted?"
        case RemoteEntryNotFoundError():
            return "the repository has no such file at this commit"
        case DisabledRepoError():
            return "the Hub has disabled this repository." + server_says(error)
        case RepositoryNotFoundError():
            return _not_found(endpoint)
        case HfHubHTTPError():
            return _explain_status(error, endpoint)
        case HFValidationError():
            return "is no name of a repository; `owner/name` is wanted"
        case FileMetadataError():
            return f"{endpoint} does not answer like a Hub. Is HF_ENDPOINT right, or does a proxy answer instead?"
        case LocalEntryNotFoundError():
            return "is not in the cache, and cannot be asked for"
        case httpx.TransportError() | ConnectionError() | TimeoutError():
            return (
                f"no whole answer from {endpoint} ({type(error).__name__}). Is there a network? Run again when there is; "
                "files that came whole are kept."
            )
        case OSError() if error.errno is not None:
            return f"cannot be put into the cache {constants.HF_HUB_CACHE}: {error.strerror}"
        case _:
            return f"{endpoint} gave an answer of no use: {redact(str(error))}"


def _explain_status(error: HfHubHTTPError, endpoint: str) -> str:
    status, says = error.response.status_code, server_says(error)
    if status == 401 and get_token():
        return (
            f"the Hub does not accept your token. Log in again with `hf auth login`, or unset HF_TOKEN.{says}"
        )
    if status in {401, 404}:
        return _not_found(endpoint)
    if status == 403:
        return f"the Hub forbids it (HTTP 403). Does your token have the right to read this repository?{says}"
    if status == 429:
        return (
            f"the Hub wants fewer requests (HTTP 429). Run again later; who is logged in may ask more.{says}"
        )
    if status >= 500:
        return f"the Hub cannot answer now (HTTP {status}), even after several tries. Run again later.{says}"
    return f"the Hub refused (HTTP {status}).{says}"


def _not_found(endpoint: str) -> str:
    return (
        f"{endpoint} knows no such repository, or it is private. Is the name right? If it is private or gated, log in "
        "with `hf auth login`."
    )


def server_says(error: HfHubHTTPError) -> str:
    """Return the Hub's own words about a refusal as a sentence, or nothing if it has none."""
    return f" The Hub says: {redact(error.server_message)}" if error.server_message else ""


def redact(text: str) -> str:
    """Return the start of a foreign text on one line, without anything that looks like a token or holds one."""
    text = " ".join(without_tokens(text).split())
    return text if len(text) <= 200 else text[:200] + "..."


def without_tokens(text: str) -> str:
    """Return a foreign text without anything that looks like a token or holds one: a server may quote what it was sent."""
    token = get_token()
    if token:
        text = text.replace(token, "<token>")
    return re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", _TOKEN.sub("<token>", text))
