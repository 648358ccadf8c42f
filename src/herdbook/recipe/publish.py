"""How a release is published."""

from __future__ import annotations

from pydantic import Field

from herdbook.recipe.section import Section

# What git allows in a tag, in the narrower form that makes a good name in a URL.
TAG_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Waiver(Section):
    """Somebody has looked at what Herdbook would refuse, and answers for it. It stands in the released recipe."""

    by: str = Field(min_length=1, description="who looked")
    because: str = Field(min_length=1, description="why it may be published all the same")


class Publish(Section):
    """How the release is published; `release.repo` says where."""

    tag: str | None = Field(
        None, pattern=TAG_PATTERN, description="tag of the published commit, such as v1.0"
    )
    private: bool = Field(False, description="a repository that only its owner's people see")
    licenses: Waiver | None = Field(
        None, description="waives what the licences of the sources do not allow, or do not say"
    )
    gated: Waiver | None = Field(
        None, description="waives that sources are gated whose weights become public"
    )
