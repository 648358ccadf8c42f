"""How a release is published."""

from __future__ import annotations

from pydantic import Field

from herdbook.quantization.scheme import SchemeName
from herdbook.recipe.card import REPO_AT_PATTERN, Repo
from herdbook.recipe.section import Section

# The names of tags that git allows, restricted to those that need no quoting in a URL.
TAG_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Waiver(Section):
    """An explicit override of a pre-flight refusal, with who approved it and why. Published with the recipe."""

    by: str = Field(min_length=1, description="who approved it")
    because: str = Field(min_length=1, description="why the release may be published nevertheless")


class Publish(Section):
    """How the release is published; `release.repo` names the repository."""

    tag: str | None = Field(
        None, pattern=TAG_PATTERN, description="tag of the published commit, such as v1.0"
    )
    replaces: str | None = Field(
        None,
        pattern=REPO_AT_PATTERN,
        description="the predecessor: owner/name, optionally @branch, @tag or @commit. The card lists what changed since; if it has "
        "another repository, `publish` proposes that its card leads to this one",
    )
    gguf_repo: Repo | None = Field(
        None,
        description="a repository of their own for the quantized files, such as owner/NAME-GGUF; the release then has none",
    )
    scheme_repos: dict[SchemeName, Repo] = Field(
        {},
        description="the repositories of the formats for GPU servers and Macs, such as owner/NAME-FP8 or owner/NAME-4bit",
    )
    private: bool = Field(False, description="publish to a private repository")
    gated: Waiver | None = Field(
        None, description="overrides the refusal because weights of gated sources would become public"
    )
