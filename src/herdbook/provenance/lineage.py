"""Lineage: the origin of the bytes of every tensor in a release, slice by slice where several are stacked in one.

The bytes either equal those of an upstream tensor, after any number of copies, or a step made them from other tensors,
which have the same kind of entry. So most of a merge can be proven by comparing byte ranges, without computing anything.
``origins`` derives a release's lineage from its records; here it is read.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import Any

from herdbook import jsonio, limits
from herdbook.errors import VerificationError
from herdbook.weights.dtypes import ITEM_BYTES

MAX_LINE = 1 << 20  # characters; a longer line is refused when it is written or read
MAX_DEPTH = 64  # models between a release's tensor and a source


@dataclass(frozen=True)
class Equals:
    """An upstream tensor that bytes equal.

    Args:
        uri: URI of its model in the lock.
        source: Name of its model in the recipe.
        file: The upstream file that contains it.
        tensor: Its name in that file.
        rows: The rows of it that the bytes equal, as the first and the one after the last; None for all of them.
    """

    uri: str
    source: str
    file: str
    tensor: str
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Derived:
    """The origin of a tensor that a step made.

    Args:
        operation: The step.
        action: What the step did, as recorded.
        parameters: Settings and results of the step: ranks, weights, tolerance.
        model: The model in the recipe that the tensor belongs to.
        tensor: Its name in that model.
        of: The tensors that it was made from, in order.
    """

    operation: str
    action: str
    parameters: dict[str, Any] = field(hash=False)
    model: str
    tensor: str
    of: tuple[TracedTensor, ...]


@dataclass(frozen=True)
class TracedTensor:
    """A tensor between sources and release: the digest of its bytes, and one of the two origins."""

    sha256: str
    equals: Equals | None = None
    made: Derived | None = None


@dataclass(frozen=True)
class LineageSlice:
    """A range of bytes in a released file: a tensor, or one of those that are stacked in it.

    Args:
        file: The file.
        tensor: The tensor in it.
        slice: The name that the slice would have as a tensor of its own; None for a whole tensor.
        dtype: Its dtype, by the code of safetensors.
        shape: Its shape.
        begin: Offset of its first byte in the file.
        end: Offset of the byte after its last.
        sha256: Digest of its bytes.
        equals: The upstream tensor that it equals, if any.
        made: Otherwise the step that made it.
    """

    file: str
    tensor: str
    slice: str | None
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    sha256: str
    equals: Equals | None = None
    made: Derived | None = None


def parse(text: str) -> list[LineageSlice]:
    """Read lineage.

    Raises:
        VerificationError: If it is damaged or too large; the line is named.
    """
    slices: list[LineageSlice] = []
    values = 0
    for number, ended in enumerate(io.StringIO(text, newline="\n"), start=1):
        line = ended.removesuffix("\n")
        values += sum(line.count(sign) for sign in ",[{")
        if len(line) > MAX_LINE or number > limits.TENSORS or values > limits.LINEAGE.values:
            raise VerificationError(
                f"lineage: line {number}: is over the limits ({MAX_LINE:,} characters per line, {limits.TENSORS:,} lines, "
                f"{limits.LINEAGE.values:,} values)"
            )
        if not line:
            continue
        try:
            slices.append(_read_slice(jsonio.load(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise VerificationError(f"lineage: line {number}: is damaged: {error!r}") from error
    return slices


def _read_slice(data: dict[str, Any]) -> LineageSlice:
    shape = tuple(_count(extent) for extent in data["shape"])
    begin, end, dtype = _count(data["begin"]), _count(data["end"]), _text(data["dtype"])
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(f"bytes {begin} to {end} do not fit {dtype} {list(shape)}")
    origin = _read_origin(data, 0)
    return LineageSlice(
        _text(data["file"]),
        _text(data["tensor"]),
        None if data["slice"] is None else _text(data["slice"]),
        dtype,
        shape,
        begin,
        end,
        origin.sha256,
        origin.equals,
        origin.made,
    )


def _read_origin(data: dict[str, Any], depth: int) -> TracedTensor:
    if depth > MAX_DEPTH:
        raise ValueError("its ancestry is too deep")
    sha256 = _text(data["sha256"])
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"{sha256!r} is not a SHA-256")
    if ("equals" in data) == ("made" in data):
        raise ValueError("either `equals` or `made` is needed")
    if "equals" in data:
        upstream = data["equals"]
        uri, source, file, tensor = (_text(upstream[key]) for key in ("uri", "source", "file", "tensor"))
        rows = None
        if "rows" in upstream:
            first, stop = (_count(row) for row in upstream["rows"])
            rows = (first, stop)
        return TracedTensor(sha256, equals=Equals(uri, source, file, tensor, rows))
    derived = data["made"]
    if not isinstance(derived["parameters"], dict):
        raise TypeError("`parameters` is not an object")
    made = Derived(
        _text(derived["operation"]),
        _text(derived["action"]),
        derived["parameters"],
        _text(derived["model"]),
        _text(derived["tensor"]),
        tuple(_read_origin(parent, depth + 1) for parent in derived["of"]),
    )
    return TracedTensor(sha256, made=made)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
