"""Models as verifying a published merge reads them: tensors by canonical names, wherever and however they are stored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook import hub
from herdbook.architectures.mixtures import BY_MODEL_TYPE, MLP
from herdbook.audit.configuration import MAX_EXPERTS, MAX_LAYERS
from herdbook.errors import SourceError, UnverifiedError, VerificationError
from herdbook.layout import WEIGHTS_INDEX
from herdbook.recipe.mergekit import HUB
from herdbook.release.subject import FolderSubject, HubSubject
from herdbook.weights.dtypes import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.architectures.mixtures import Family
    from herdbook.release.subject import Subject

MAX_TENSORS = 200_000
MAX_SHARDS = 2_000
CONFIG_NAME = "config.json"
CONFIG_BYTES = 4_000_000
FUSED = re.compile(r"model\.layers\.(\d{1,4})\.mlp\.experts\.(gate_up_proj|down_proj)")
FUSED_ROUTER = re.compile(r"model\.layers\.(\d{1,4})\.mlp\.gate\.weight")


@dataclass(frozen=True)
class TensorSlice:
    """A tensor, or a contiguous slice of a fused one.

    Args:
        file: The file that it is in.
        tensor: What it, or the fused tensor, is called there.
        dtype: Its dtype, by the code of safetensors.
        shape: Its own shape.
        start: Offset of its first byte in the file.
        stop: Offset of the byte after its last.
    """

    file: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def item_bytes(self) -> int:
        """Size of a number in bytes."""
        return ITEM_BYTES[self.dtype]

    @property
    def size_bytes(self) -> int:
        """Size in bytes."""
        return self.stop - self.start


@dataclass(frozen=True)
class Model:
    """A model.

    Args:
        subject: Where it is.
        config: Its ``config.json``.
        family: Which kind of mixture it is, or None.
        pieces: Its tensors by canonical name, fused ones cut into those that they are made of.
    """

    subject: Subject
    config: dict[str, Any]
    family: Family | None
    pieces: dict[str, TensorSlice]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes of a tensor, from ``start`` up to ``stop`` (its end), counted from its beginning.

        Raises:
            SourceError: If they cannot be had.
        """
        piece = self.pieces[name]
        return self.subject.read_range(
            piece.file, piece.start + start, piece.stop if stop is None else piece.start + stop
        )

    @property
    def layers(self) -> int:
        """How many layers its configuration says. Raises VerificationError if it says none."""
        found = self.config.get("num_hidden_layers")
        if type(found) is not int or not 0 < found <= MAX_LAYERS:
            raise VerificationError(f"{self.subject.name}: {CONFIG_NAME} names no number of layers")
        return found


def open_model(subject: Subject) -> Model:
    """Read a model's configuration and headers; no weights.

    Raises:
        SourceError: If it has no weights in safetensors, or they cannot be had.
        CheckpointError: If a header is damaged.
        VerificationError: If it contradicts itself.
    """
    config = subject.json(CONFIG_NAME) if CONFIG_NAME in subject.files else {}
    if not isinstance(config, dict):
        raise VerificationError(f"{subject.name}: {CONFIG_NAME} is no mapping")
    kind = config.get("model_type")
    family = BY_MODEL_TYPE.get(kind) if isinstance(kind, str) else None
    index = subject.read(WEIGHTS_INDEX) if WEIGHTS_INDEX in subject.files else None
    remote = [
        hub.RemoteFile(name, entry.size_bytes, entry.sha256, entry.git_blob)
        for name, entry in subject.files.items()
    ]
    pieces: dict[str, TensorSlice] = {}
    shards = hub.weights_of(remote, index, subject.name)
    if len(shards) > MAX_SHARDS:
        raise VerificationError(f"{subject.name}: has more than {MAX_SHARDS} shards")
    for file in shards:
        for span in subject.header(file.name).values():
            whole = TensorSlice(file.name, span.name, span.dtype, tuple(span.shape), span.start, span.end)
            for name, piece in _cut(whole, family):
                if name in pieces or len(pieces) >= MAX_TENSORS:
                    raise VerificationError(f"{subject.name}: {span.name} stands there twice, or too many do")
                pieces[name] = piece
    return Model(subject, config, family, pieces)


def _cut(whole: TensorSlice, family: Family | None) -> Iterator[tuple[str, TensorSlice]]:
    """Yield a tensor under its canonical name; of a fused one each expert's matrices, gate above up."""
    router = FUSED_ROUTER.fullmatch(whole.tensor)
    if family and router:
        yield family.router(int(router[1])), whole
        return
    fused = FUSED.fullmatch(whole.tensor) if family and family.fused else None
    if not family or not fused:
        yield whole.tensor, whole
        return
    matrices = MLP[:2] if fused[2] == "gate_up_proj" else MLP[2:]
    experts = whole.shape[0] if len(whole.shape) == 3 else 0
    if not 0 < experts <= MAX_EXPERTS or whole.shape[1] % len(matrices) or not whole.size_bytes:
        raise VerificationError(f"{whole.file}: {whole.tensor}: {list(whole.shape)} is no shape of experts")
    shape = (whole.shape[1] // len(matrices), whole.shape[2])
    size = whole.size_bytes // (experts * len(matrices))
    start = whole.start
    for place in range(experts):
        for matrix in matrices:
            name = family.expert(int(fused[1]), place, matrix)
            yield name, TensorSlice(whole.file, whole.tensor, whole.dtype, shape, start, start + size)
            start += size


def open_reference(reference: str, subject: Subject, beside: Path | None) -> Subject:
    """Open a model that a configuration names.

    A folder is only ever read inside of what a person named: the merge's own folder, or that of ``--config``.

    Args:
        reference: ``path[@revision]``, with ``+adapter`` after it if there is one.
        subject: The merge.
        beside: The folder of the configuration that a person named, if one did.

    Raises:
        UnverifiedError: If it is in no place that may be read, or has an adapter.
        GoneError: If the repository has no such revision.
        SourceError: If it cannot be had.
    """
    if "+" in reference:
        raise UnverifiedError(
            f"{reference}: an adapter is folded into it, so its bytes are those of no source"
        )
    path, _, revision = reference.partition("@")
    if beside is not None and (folder := _inside(beside, path)):
        return FolderSubject(folder)
    if HUB.fullmatch(path) and not path.startswith("."):
        return HubSubject(path, revision or None)
    if isinstance(subject, FolderSubject) and (folder := _inside(subject.folder, path)):
        return FolderSubject(folder)
    raise UnverifiedError(
        f"{reference}: is a path on its author's machine, and leads to no folder inside of what was named here"
    )


def _inside(folder: Path, path: str) -> Path | None:
    """Return where a path leads if that is a folder inside of another, links followed."""
    try:
        found = (folder / path).resolve()
        inside = found.is_relative_to(folder.resolve()) and found.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"{path}: is no path: {error}") from error
    return found if inside else None
