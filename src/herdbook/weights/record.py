"""Records: the JSON beside each shard that states what is in it, and how each tensor was made. No torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from herdbook.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

# What happened to one tensor: it came from a source, was copied from a parent, or was computed.
Action = Literal[
    "adapter",
    "alter",
    "cast",
    "compress",
    "copy",
    "fetch",
    "laser",
    "merge",
    "router",
    "rows",
    "stack",
    "zeros",
]


class FileEntry(TypedDict):
    """The shard itself."""

    size_bytes: int
    sha256: str


class CitedTensor(TypedDict):
    """A tensor that another was made from: the key of its part, its name in that part, and the digest of its bytes."""

    key: str
    tensor: str
    sha256: str


# `from` is a keyword of Python, so that the fields of a class cannot have this name.
_Made = TypedDict("_Made", {"from": list[CitedTensor]}, total=False)


class SliceEntry(_Made, total=False):
    """A slice of a tensor in which several are stacked, or whose rows have several origins.

    Args:
        name: The name that it would have as a tensor of its own.
        shape: Its shape.
        sha256: The digest of its bytes.
        kind: For rows: where they come from (a row, a mean, zeros, padding).
        rows: For rows: the first of them in each cited tensor.
    """

    name: str
    shape: list[int]
    sha256: str
    kind: str
    rows: list[int]


class Evidence(TypedDict, total=False):
    """What a reduction by LASER did to a matrix; ``steps.laser.reduce`` describes the fields."""

    rule: int | str | dict[str, Any]
    rank: int
    of: int
    energy: float
    change: float | str  # of a reduction a number; an adapter's change of a tensor has a name
    threshold: float
    clusters: dict[str, Any]
    device: str
    tolerance: float | None
    spectrum: Any  # ``steps.laser.evidence.SpectrumSummary``
    assumption_holds: bool


class TensorEntry(_Made, Evidence, total=False):
    """A tensor of a shard: its form, its digest, what was done, and with which values.

    The first four fields are in every entry. Merges add the values of their method under the names of the recipe.
    """

    action: Action
    dtype: str
    shape: list[int]
    sha256: str
    slices: list[SliceEntry]
    gate: str
    method: str
    scale: float
    tokens: list[int] | None


class Contents(TypedDict):
    """A record's statement about the bytes of a shard."""

    file: FileEntry
    tensors: dict[str, TensorEntry]


class Record(Contents):
    """A shard's record: its contents, and which step made it from what, and with which code."""

    key: str
    operation: str
    parameters: dict[str, Any]
    code: dict[str, Any]


def pieces(entry: TensorEntry) -> list[SliceEntry]:
    """Return the slices of a tensor; of one that has none, the tensor itself."""
    return entry["slices"] if "slices" in entry else [cast("SliceEntry", entry)]


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["file"]["sha256"], record["tensors"]  # both are required
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the record is missing. Rebuild the shard.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: the record is damaged. Delete it and its shard, and rebuild both."
        ) from error
    return cast("Record", dict(record))
