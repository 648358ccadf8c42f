"""The sections of a recipe on its release: what is released and reported."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from herdbook.licensing import Obligation  # noqa: TC001 - pydantic reads it
from herdbook.recipe.card import Image, Text
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


class Uses(Section):
    """What the model is for, and what it is not for. The card lists both."""

    intended: list[Text] = Field([], description="what the model is made for, one use an entry")
    unsuitable: list[Text] = Field([], description="what it should not be used for, one use an entry")


class Signer(Section):
    """Who signs the release: the holder of a key, or the owner of an identity (keyless). The card names it."""

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="the fingerprint of the public key, as `herdbook attest` prints it"
    )
    identity: Text | None = Field(None, description="keyless: the address or the workflow that signs")
    issuer: Text | None = Field(None, description="keyless: the address of who confirms the identity")

    @model_validator(mode="after")
    def _is_one(self) -> Signer:
        if (self.key is None) is (self.identity is None) or (self.identity is None) is not (
            self.issuer is None
        ):
            raise ValueError("needs either key, or identity and issuer")
        return self

    def __str__(self) -> str:
        """Return a description, in the words of a verification."""
        return f"key {self.key}" if self.key else f"{self.identity}, confirmed by {self.issuer}"


class Release(Licensed):
    """What is released, and the content of its card beyond measurements."""

    model: Name = Field(description="the model that is released")
    name: str = Field(
        pattern=RELEASE_NAME_PATTERN, description="name of the release, on the card and in file names"
    )
    repo: str | None = Field(
        None, pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name on the Hub, where it will be published"
    )
    language: Languages | None = Field(
        None, description="codes of ISO 639, such as en; without it, the card names no language"
    )
    summary: str | None = Field(None, description="a sentence or two that introduce the model")
    limits: str | None = Field(
        None, description="what the model must not be used for, or is known to do badly; the card warns of it"
    )
    uses: Uses | None = Field(None, description="what the model is for, and what not")
    quote: Quote | None = None
    image: Image | None = Field(None, description="the picture at the top of the card")
    signer: Signer | None = Field(
        None,
        description="who signs the release: no other signature is made or accepted, and the card names it",
    )
    waivers: list[LicenseWaiver] = Field(
        [], description="obligations of the sources' licenses that are dropped in so many words"
    )


class Routing(Section):
    """The texts of the report on the released mixture's routers."""

    texts: list[Name] = Field(
        min_length=1,
        description="kinds of text, named as in `calibration`: each expert's share of their tokens is reported",
    )
