"""Models as an audit reads them: tensors by canonical names, in folders or on the Hub, fused or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook import hub, limits
from herdbook.architectures.mixtures import BY_MODEL_TYPE, MLP
from herdbook.audit.configuration import MAX_EXPERTS, MAX_LAYERS
from herdbook.errors import SourceError, UnverifiedError, VerificationError
from herdbook.importing.references import HUB
from herdbook.layout import CONFIG, WEIGHTS_INDEX
from herdbook.release.hub_subject import HubSubject
from herdbook.release.subject import FolderSubject
from herdbook.weights.dtypes import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.architectures.mixtures import Family
    from herdbook.release.subject import Subject

MAX_SHARDS = 2_000
FUSED = re.compile(r"model\.layers\.(\d{1,4})\.mlp\.experts\.(gate_up_proj|down_proj)")
FUSED_ROUTER = re.compile(r"model\.layers\.(\d{1,4})\.mlp\.gate\.weight")


@dataclass(frozen=True)
class TensorSlice:
    """A tensor, or a contiguous slice of a fused one.

    Args:
        file: The file that it is in.
        tensor: Its name in the file, or that of the fused tensor.
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
        subject: The folder or repository.
        config: Its ``config.json``.
        family: The family of a mixture, or None.
        pieces: Its tensors by canonical name; fused ones are split into their parts.
    """

    subject: Subject
    config: dict[str, Any]
    family: Family | None
    pieces: dict[str, TensorSlice]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes of a tensor, from ``start`` up to ``stop`` (its end), counted from its beginning.

        Raises:
            SourceError: If they cannot be read.
        """
        piece = self.pieces[name]
        return self.subject.read_range(
            piece.file, piece.start + start, piece.stop if stop is None else piece.start + stop
        )

    @property
    def layers(self) -> int:
        """The number of layers in its configuration. Raises VerificationError if it is missing or not a valid number."""
        count = self.config.get("num_hidden_layers")
        if type(count) is not int or not 0 < count <= MAX_LAYERS:
            raise VerificationError(
                f"{self.subject.name}: {CONFIG}: num_hidden_layers is missing or not a valid number"
            )
        return count


def open_model(subject: Subject) -> Model:
    """Read a model's configuration and headers; no weights.

    Raises:
        SourceError: If it has no weights in safetensors, or they cannot be read.
        UnverifiedError: If one of these files is not a plain file.
        CheckpointError: If a header is damaged.
        VerificationError: If it contradicts itself.
    """
    for name, why in sorted(subject.odd.items()):
        if name in {CONFIG, WEIGHTS_INDEX} or name.endswith(".safetensors"):
            raise UnverifiedError(f"{subject.name}: {name} {why}")
    config = subject.json(CONFIG) if CONFIG in subject.files else {}
    if not isinstance(config, dict):
        raise VerificationError(f"{subject.name}: {CONFIG} is not a mapping")
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
            for name, piece in _split(whole, family):
                if name in pieces or len(pieces) >= limits.TENSORS:
                    raise VerificationError(
                        f"{subject.name}: contains {span.name} twice, or more than {limits.TENSORS} tensors"
                    )
                pieces[name] = piece
    return Model(subject, config, family, pieces)


def _split(whole: TensorSlice, family: Family | None) -> Iterator[tuple[str, TensorSlice]]:
    """Yield a tensor under its canonical name; a fused one as each expert's matrices, gate before up."""
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
        raise VerificationError(
            f"{whole.file}: {whole.tensor}: {list(whole.shape)} is not a shape of fused experts"
        )
    shape = (whole.shape[1] // len(matrices), whole.shape[2])
    size = whole.size_bytes // (experts * len(matrices))
    start = whole.start
    for expert in range(experts):
        for matrix in matrices:
            name = family.expert(int(fused[1]), expert, matrix)
            yield name, TensorSlice(whole.file, whole.tensor, whole.dtype, shape, start, start + size)
            start += size


def open_reference(reference: str, subject: Subject, config_folder: Path | None) -> Subject:
    """Open a model that a configuration names.

    A folder is read only inside a folder that the user named: the merge's own folder, or that of ``--config``.

    Args:
        reference: ``path[@revision]``, followed by ``+adapter`` if one is used.
        subject: The merge.
        config_folder: The folder of the configuration that the user named, if any.

    Raises:
        UnverifiedError: If it is not in a folder that may be read, or has an adapter.
        GoneError: If the repository has no such revision.
        SourceError: If it cannot be read.
    """
    if "+" in reference:
        raise UnverifiedError(f"{reference}: includes an adapter, so its bytes are not those of any source")
    path, _, revision = reference.partition("@")
    if config_folder is not None and (folder := _inside(config_folder, path)):
        return FolderSubject(folder)
    if HUB.fullmatch(path) and not path.startswith("."):
        return HubSubject(path, revision or None)
    if isinstance(subject, FolderSubject) and (folder := _inside(subject.folder, path)):
        return FolderSubject(folder)
    raise UnverifiedError(
        f"{reference}: is a path on its author's machine; no such folder exists inside the folders that were passed"
    )


def _inside(folder: Path, path: str) -> Path | None:
    """Return the folder that a path leads to, links followed, if it is inside another folder; else None."""
    try:
        target = (folder / path).resolve()
        inside = target.is_relative_to(folder.resolve()) and target.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"{path}: is not a valid path: {error}") from error
    return target if inside else None
