"""What a lock states about vocabularies: how they differ, and what that of a merge or a mixture is made of."""

from __future__ import annotations

from pydantic import Field, JsonValue

from herdbook.recipe import Section


class LockedTokens(Section):
    """The tokens of a model and their ids: how many there are, the token with the highest id, and a digest of all."""

    count: int = Field(ge=0)
    highest: int
    last: str
    sha256: str


class LockedTokenDifference(Section):
    """How the tokens of two vocabularies differ.

    Args:
        between: The digests of the two (see ``LockedTokens``), sorted.
        moved: How many tokens both have with different ids.
        moved_token: The first of them, and its id in either.
        reused: How many ids stand for different tokens, of which the other vocabulary has neither.
        reused_id: The first of them, and its token in either.
        alone: How many tokens only the one and only the other has.
        alone_tokens: The first of them in either; empty without any.
    """

    between: tuple[str, str]
    moved: int = 0
    moved_token: tuple[str, int, int] | None = None
    reused: int = 0
    reused_id: tuple[int, str, str] | None = None
    alone: tuple[int, int] = (0, 0)
    alone_tokens: tuple[str, str] = ("", "")

    def seen_from(self, sha256: str) -> LockedTokenDifference:
        """Return the same difference with the vocabulary of that digest as the first of the two."""
        if self.between[0] == sha256:
            return self
        turned = {
            "moved_token": self.moved_token and (self.moved_token[0], *self.moved_token[:0:-1]),
            "reused_id": self.reused_id and (self.reused_id[0], *self.reused_id[:0:-1]),
            **{name: getattr(self, name)[::-1] for name in ("between", "alone", "alone_tokens")},
        }
        return self.model_copy(update=turned)


class LockedToken(Section):
    """A token that is added to a tokenizer, with the settings of the library tokenizers."""

    id: int = Field(ge=0)
    content: str
    special: bool = False
    normalized: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class LockedChoice(Section):
    """A token for which the recipe chooses a row: its id, and that of the other token whose row it gets, if it names one."""

    id: int = Field(ge=0)
    row: int | None = Field(None, ge=0)


class LockedVocabulary(Section):
    """A vocabulary that is made, and which rows of its models' embeddings belong to its tokens.

    Args:
        asked: The recipe's section.
        origin: The source whose tokenizer it starts from.
        models: The digest of the tokens of each model that it is made of, by the model's name.
        tokens: The result.
        added: The tokens that are added to the tokenizer of ``origin``.
        rows: For each model that is joined: runs of ids, as first id, first row of the model's, and how many.
        choices: The tokens for which the recipe chooses a row.
        chat_template: The chat template; None if it stays that of ``origin``.
        files: The SHA-256 of each file of the tokenizer that is not as ``origin`` has it.
    """

    asked: dict[str, JsonValue]
    origin: str
    models: dict[str, str]
    tokens: LockedTokens
    added: tuple[LockedToken, ...] = ()
    rows: dict[str, tuple[tuple[int, int, int], ...]] = Field(default_factory=dict)
    choices: dict[str, LockedChoice] = Field(default_factory=dict)
    chat_template: str | None = None
    files: dict[str, str] = Field(default_factory=dict)
