"""What all sections of a recipe share: names, and the refusal of unknown keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
RELEASE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Dtype = Literal["bfloat16", "float16", "float32"]
# The implementation to follow where formulas differ. A release names it, so that its meaning cannot change.
Semantics = Literal["native-1", "mergekit-0.1.5", "mergekit-0.1.4"]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Section(BaseModel):
    """Base of all sections of a recipe: immutable, and without unknown keys."""

    # Most commands read no recipe: the validators are built when the first one is read.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
