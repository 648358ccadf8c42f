"""The tensors of any checkpoint: a folder, a safetensors file, or a repository on the Hub, read by range requests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import SourceError
from herdbook.layout import WEIGHTS_INDEX
from herdbook.weights.checkpoint import Span, read_header, read_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def open_tensors(model: str) -> Iterator[tuple[Span, Callable[[], bytes]]]:
    """Yield each tensor of a checkpoint, with a function that reads its bytes.

    Args:
        model: A folder, a safetensors file, or ``owner/name[@revision]`` on the Hub, of which no file is downloaded as
            a whole: each tensor is read by a range request.

    Raises:
        SourceError: If the checkpoint does not exist.
    """
    path = Path(model)
    return _local(path) if path.exists() else _remote(model)


def _local(path: Path) -> Iterator[tuple[Span, Callable[[], bytes]]]:
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if not files:
        raise SourceError(f"{path}: contains no safetensors files")
    for file in files:
        for span in read_header(file).values():
            yield span, lambda file=file, span=span: read_span(file, span)  # type: ignore[misc]


def _remote(model: str) -> Iterator[tuple[Span, Callable[[], bytes]]]:
    repo, _, revision = model.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise SourceError(f"{model}: is neither an existing path nor an owner/name on the Hub")
    remote = hub.resolve(repo, revision or None)
    by_name = {file.name: file for file in remote.files}
    index = (
        hub.download(repo, remote.commit, by_name[WEIGHTS_INDEX]).read_bytes()
        if WEIGHTS_INDEX in by_name
        else None
    )
    for file in hub.weights_of(remote.files, index, f"hub: {model}"):
        for span in hub.tensor_headers(repo, remote.commit, file.name).values():
            yield (
                span,
                lambda file=file, span=span: hub.read_tensor(repo, remote.commit, file.name, span),  # type: ignore[misc]
            )
