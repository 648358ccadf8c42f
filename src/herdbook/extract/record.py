"""The record of an extracted adapter: what it was made from, and what became of each tensor that differs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from herdbook.recipe.section import Section

RECORD = "extraction.json"

Share = Annotated[float, Field(ge=0, le=1)]
# The norm of a difference, relative to that of the base's tensor; null if that is zero.
Change = Annotated[float, Field(ge=0)] | None


class Source(Section):
    """A model: where it is from, and the digests of its files, SHA-256 or git's."""

    uri: str
    files: dict[str, str]


class Request(Section):
    """Everything that decides an adapter."""

    base: Source
    tuned: Source
    rank: Any
    modules_to_save: list[str]
    leave_out: list[str]
    herdbook: str


class Matrix(Section):
    """The factors of a matrix's difference: their rank, that of the matrix, and the share of the squared norm that is kept."""

    rank: int = Field(ge=1)
    of: int = Field(ge=1)
    energy: Share
    change: Change


class Copy(Section):
    """A tensor that is saved whole, or left out."""

    change: Change


class Whole(Section):
    """What becomes of the tensors that are not matrices of layers, and of the matrices that the user excepted."""

    saved: dict[str, Copy]
    biases: dict[str, Copy]
    left_out: dict[str, Copy]


class Record(Whole):
    """The record.

    Args:
        equal: How many tensors are equal in both models.
        file: Size and digest of the weights file.
        tensors: Dtype, shape and digest of each of its tensors.
    """

    request: Request
    matrices: dict[str, Matrix]
    equal: int
    file: dict[str, Any]
    tensors: dict[str, dict[str, Any]]
