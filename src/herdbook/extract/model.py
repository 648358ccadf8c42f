"""The two models of an extraction: pinned, and read in pieces, so that memory does not grow with their sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from herdbook import hub, plain
from herdbook.errors import RecipeError, SourceError
from herdbook.extract.record import Source
from herdbook.lock import uri_of
from herdbook.lock.folder import pin_files
from herdbook.lock.repository import pin_hub
from herdbook.recipe import Folder, Hub
from herdbook.weights.checkpoint import read_header, read_span
from herdbook.weights.dtypes import ITEM_BYTES
from herdbook.weights.tensors import from_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from herdbook.lock import LockedSource
    from herdbook.weights.checkpoint import Span


@dataclass(frozen=True)
class Model:
    """A model.

    Args:
        place: The folder or repository, as the user named it.
        locked: Its pin.
        repo: ``owner/name``; empty for a folder.
        spans: For each tensor, the name of its file, and its byte range in it.
        paths: The files that are on this machine.
        stamps: What shows whether these were changed since they were hashed.
    """

    place: str
    locked: LockedSource
    repo: str
    spans: Mapping[str, tuple[str, Span]]
    paths: Mapping[str, Path]
    stamps: Mapping[str, plain.Stamp]

    @property
    def about(self) -> Source:
        """What the record states about it: no path of this machine."""
        files = {file.name: str(file.sha256 or file.git_blob) for file in self.locked.files}
        return Source(uri=self.locked.uri, files=files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self.spans[name][1].shape)

    def dtype(self, name: str) -> str:
        """Return the dtype of a tensor, by safetensors' code."""
        return self.spans[name][1].dtype

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | bytearray:
        """Return the bytes of a tensor's elements from ``start`` up to ``stop`` (all by default).

        Raises:
            SourceError: If they cannot be read.
        """
        file, span = self.spans[name]
        width = ITEM_BYTES[span.dtype]
        end = span.end if stop is None else min(span.end, span.start + stop * width)
        part = replace(span, start=span.start + start * width, end=end)
        if file in self.paths:
            return read_span(self.paths[file], part)
        return bytearray().join(hub.stream_tensor(self.repo, self.locked.revision, file, part))

    def check_unchanged(self) -> None:
        """Compare what is known of its files with what was known before they were hashed.

        Raises:
            SourceError: If one of them was changed since.
        """
        for file, path in self.paths.items():
            if _stamp(path) != self.stamps[file]:
                raise SourceError(
                    f"{self.place}: {file} was changed while it was read. Run the command again while nothing writes to it."
                )

    def matrix(self, name: str) -> torch.Tensor:
        """Return a tensor in float64. Raises CheckpointError if it contains NaN or infinite values."""
        import torch

        return from_bytes(self.read(name), self.dtype(name), self.shape(name), f"{self.place}: {name}").to(
            torch.float64
        )


def open_model(place: str) -> Model:
    """Pin a model and read the headers of its weights.

    Args:
        place: A folder, or ``owner/name[@revision]`` on the Hub. Of the Hub, a file that is in the local cache is used as a
            whole; of others, tensors are read by range requests.

    Raises:
        SourceError: If it does not exist, or is not a whole model in safetensors.
        RecipeError: If it is not of one of these forms.
    """
    if Path(place).is_dir():
        folder = Path(place)
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        uri = uri_of(Folder(folder=str(folder.resolve())), "")
        stamps = {name: _stamp(folder / name) for name in names}
        locked = pin_files(folder, names, place, asked={}, uri=uri, declared_license=None)
        files = dict.fromkeys(tensor.file for tensor in locked.tensors)
        headers = {file: read_header(folder / file) for file in files}
        paths = {file: folder / file for file in files}
        return Model(place, locked, "", _by_name(headers), paths, stamps)
    try:
        source = Hub(hub=place)
    except ValidationError as error:
        raise RecipeError(f"{place}: is neither a folder nor owner/name or owner/name@revision") from error
    locked, repo = pin_hub(source), source.hub.partition("@")[0]
    files = dict.fromkeys(tensor.file for tensor in locked.tensors)
    headers = {file: hub.tensor_headers(repo, locked.revision, file) for file in files}
    paths = {
        # reads no byte from the Hub, and compares the digest
        file.name: hub.download(repo, locked.revision, hub.RemoteFile(**file.model_dump()))
        for file in locked.files
        if file.name in files and hub.cached(repo, locked.revision, file.name)
    }
    stamps = {
        file: _stamp(path) for file, path in paths.items()
    }  # files in the cache are never changed in place
    return Model(place, locked, repo, _by_name(headers), paths, stamps)


def _stamp(path: Path) -> plain.Stamp:
    return plain.Stamp.of(path.stat())


def _by_name(headers: Mapping[str, Mapping[str, Span]]) -> dict[str, tuple[str, Span]]:
    return {name: (file, span) for file, spans in headers.items() for name, span in spans.items()}
