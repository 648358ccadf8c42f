"""What all parts of a recipe share: names, and sections that are closed to unknown keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
RELEASE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Dtype = Literal["bfloat16", "float16", "float32"]
# Whose formulas are meant where they differ. A release names them, so that what it means cannot move.
Semantics = Literal["native-1", "mergekit-0.1.5", "mergekit-0.1.4"]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Section(BaseModel):
    """Base of all parts of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
