"""The types of an index, ``model.safetensors.index.json``: checked once, where it is read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, ValidationError

from herdbook import jsonio, limits
from herdbook.faults import told


class _Index(BaseModel):
    """The content of an index; transformers reads nothing else of it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    weight_map: Annotated[dict[str, str], FailFast()]


def read_index(content: bytes) -> dict[str, str]:
    """Return the file of each tensor that an index names.

    Raises:
        OverLimitError: If it is too large.
        ValueError: If it is not an index.
    """
    found: Any = jsonio.load_object(content, limits.DOCUMENT)
    try:
        return _Index.model_validate(found).weight_map
    except ValidationError as error:
        raise ValueError(told(error, found)[0]) from error
