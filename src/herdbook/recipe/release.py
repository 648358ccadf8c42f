"""The sections of a recipe on its release: what is released and reported."""

from __future__ import annotations

from pydantic import Field

from herdbook.licensing import Obligation  # noqa: TC001 - pydantic reads it
from herdbook.recipe.card import Image  # noqa: TC001 - pydantic reads it
from herdbook.recipe.hub_values import Languages, Licensed
from herdbook.recipe.publish import Waiver
from herdbook.recipe.section import RELEASE_NAME_PATTERN, Name, Section


class Quote(Section):
    """The quotation that opens the card."""

    text: str = Field(min_length=1)
    author: str | None = None
    source: str | None = Field(None, description="where it is from: a book, a film")


class LicenseWaiver(Waiver):
    """An obligation of a source's license that the release drops, with who approved it and why. The card states it."""

    source: Name = Field(description="the source, or the model that the adapter is folded into")
    obligation: Obligation = Field(description="the obligation, as the refusal names it")


class Release(Licensed):
    """What is released, and the content of its card beyond measurements."""

    model: Name = Field(description="the model that is released")
    name: str = Field(
        pattern=RELEASE_NAME_PATTERN, description="name of the release, on the card and in file names"
    )
    repo: str | None = Field(
        None, pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name on the Hub, where it will be published"
    )
    language: Languages = Field(["en"], description="codes of ISO 639, such as en")
    summary: str | None = Field(None, description="a sentence or two that introduce the model")
    limits: str | None = Field(
        None, description="what the model must not be used for, or is known to do badly; the card warns of it"
    )
    quote: Quote | None = None
    image: Image | None = Field(None, description="the picture at the top of the card")
    waivers: list[LicenseWaiver] = Field(
        [], description="obligations of the sources' licenses that are dropped in so many words"
    )


class Routing(Section):
    """The texts of the report on the released mixture's routers."""

    texts: list[Name] = Field(
        min_length=1,
        description="kinds of text, named as in `calibration`: each expert's share of their tokens is reported",
    )
