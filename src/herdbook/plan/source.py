"""Planning a source: a part for each weights file of the upstream, or for each run of tensors that comes out of GGUF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.dense import matrix_of
from herdbook.key import digest
from herdbook.plan.code import COPY, Code
from herdbook.plan.model import Part, Tensor
from herdbook.plan.sharding import cut
from herdbook.recipe import Hub, Pypi
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import LockedFile, LockedSource
    from herdbook.recipe import Section

# transformers reads a GGUF with the package gguf, and makes its tokenizer with tokenizers
GGUF_CODE = Code(("herdbook.steps.fetch.step",), packages=("gguf", "tokenizers"))
# ranges of a file have no digest that they could be compared with
RANGES_CODE = Code(
    ("herdbook.hub.content", "herdbook.steps.fetch.step"),
    without=("herdbook.sources.gguf", "herdbook.weights.tensors"),
)


def plan_source(
    name: str, model: Section, locked: LockedSource, max_bytes: int, *, whole: bool = True
) -> tuple[Part, ...]:
    """Return the parts of a source.

    Of one on the Hub of which only the MLPs are needed, only their bytes are read, by range requests, and written into
    shards of our own; all other sources are there as whole files.

    A part's key holds the digest of the file that its bytes come from, not where that file was found: the same bytes
    in another commit or on another machine are the same part.
    """
    tensors = [Tensor(t.name, t.dtype, t.shape, "fetch") for t in locked.tensors]
    if locked.weights == "gguf":
        assert isinstance(model, Pypi)  # noqa: S101 - the lock was checked against the recipe
        container = locked.files[0]
        code = GGUF_CODE.describe()
        runs = cut(tensors, max_bytes)
        return tuple(
            _part(
                name,
                str(index),
                run,
                {"file": container.sha256, "dtype": DTYPE_CODES[model.dtype]},
                code,
            )
            for index, run in enumerate(runs, start=1)
        )
    sizes = {file.name: file for file in locked.files}
    if not whole and isinstance(model, Hub):
        return tuple(_ranges(name, locked, sizes, max_bytes))
    files = dict.fromkeys(tensor.file for tensor in locked.tensors)
    return tuple(
        _part(
            name,
            str(index),
            tuple(tensor for tensor, t in zip(tensors, locked.tensors, strict=True) if t.file == file),
            {"file": sizes[file].sha256 or sizes[file].git_blob},
            COPY.describe(),
            file,
        )
        for index, file in enumerate(files, start=1)
    )


def _ranges(name: str, locked: LockedSource, files: dict[str, LockedFile], max_bytes: int) -> Iterator[Part]:
    """Yield parts that hold the MLPs of one weights file each, or of a run of its layers."""
    wanted: dict[str, list[Tensor]] = {}
    for tensor in locked.tensors:
        if (matrix_of(tensor.name) or "").startswith("mlp."):
            made = Tensor(tensor.name, tensor.dtype, tensor.shape, "fetch")
            wanted.setdefault(tensor.file, []).append(made)
    number = 0
    for file, tensors in wanted.items():
        for run in cut(tensors, max_bytes):
            number += 1
            parameters: dict[str, object] = {
                "file": files[file].sha256 or files[file].git_blob,
                "ranges": file,
            }
            yield _part(name, f"mlp-{number}", run, parameters, RANGES_CODE.describe())


def _part(
    name: str,
    label: str,
    tensors: tuple[Tensor, ...],
    parameters: dict[str, object],
    code: dict[str, str],
    file: str | None = None,
) -> Part:
    content = {
        "operation": "fetch",
        "parameters": parameters,
        "code": code,
        "tensors": [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in tensors],
    }
    extra = {"name": file} if file else {}
    return Part(name, label, "fetch", digest(content), tensors, {**parameters, **extra}, code=code)
