"""What a lock states about the vocabulary of a merge or a mixture that is made of those of several models."""

from __future__ import annotations

from pydantic import Field, JsonValue

from herdbook.recipe import Section


class LockedTokens(Section):
    """The tokens of a model and their ids: how many there are, the token with the highest id, and a digest of all."""

    count: int = Field(ge=0)
    highest: int
    last: str
    sha256: str


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
