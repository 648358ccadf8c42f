"""The vocabulary of a merge or a mixture: which tokens it has, and where the rows of its embeddings come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from herdbook.humanize import did_you_mean
from herdbook.recipe.section import Name, Section

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

UNION, BASE, AUTO = "union", "base", "auto"
# The chat templates that mergekit has by name.
TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")
SHORTEST_TEMPLATE = 20  # characters; mergekit takes nothing shorter for a template


class Zero(Section):
    """A row of zeros."""

    kind: Literal["zero"]


class ModelToken(Section):
    """The row of another token."""

    kind: Literal["model_token"]
    model: Name
    token: str | None = Field(None, description="the token; or give token_id")
    token_id: int | None = Field(None, ge=0, description="its row; or give token")


def _kind(value: Any) -> str:
    """Return which member of a union of a name and sections a value is, so that only its own problems are reported."""
    if isinstance(value, Section):
        return type(value).__name__
    if not isinstance(value, dict):
        return "name"
    return "Zero" if value.get("kind") == "zero" else "ModelToken"


class Token(Section):
    """A token, and where its row comes from in models that do not have it."""

    source: Annotated[
        Annotated[Name, Tag("name")]
        | Annotated[Zero, Tag("Zero")]
        | Annotated[ModelToken, Tag("ModelToken")],
        Discriminator(_kind),
    ] = Field(
        description="a model that has the token; {kind: zero}; or {kind: model_token, model, token or token_id}, the row of "
        "another token"
    )
    force: bool = Field(False, description="also in models that have the token")


class Tokenizer(Section):
    """The vocabulary of the result, with whose rows the embeddings of all models are lined up."""

    source: str | None = Field(
        None,
        description="union: the base's tokens, then those that only other models have; base; or the name of a model. If left "
        "out, nothing is lined up",
    )
    tokens: dict[str, Token] = Field({}, description="tokens that are added, or whose rows are chosen")
    pad_to_multiple_of: int | None = Field(
        None,
        ge=1,
        le=1 << 20,
        description="add rows (the mean of the others) up to a multiple of this number",
    )
    chat_template: str | None = Field(
        None,
        description=f"{', '.join(TEMPLATES)}; auto, the most frequent one of the models; the name of a model; or a template",
    )

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it names, with repetitions."""
        chosen = (self.source,) if self.source and self.source not in {UNION, BASE} else ()
        return (*chosen, *(model for token in self.tokens.values() for model in _models_of(token)))


Vocabulary = Annotated[
    Annotated[Name, Tag("name")] | Annotated[Tokenizer, Tag("Tokenizer")],
    Discriminator(lambda value: "Tokenizer" if isinstance(value, dict | Section) else "name"),
]


def keeper(tokenizer: str | Tokenizer | None, base: str) -> str:
    """Return the model whose tokenizer a merge or a mixture has, or starts from; ``base`` is the one by default."""
    if isinstance(tokenizer, Tokenizer):
        return base if tokenizer.source in {None, UNION, BASE} else str(tokenizer.source)
    return tokenizer or base


def named(tokenizer: str | Tokenizer | None) -> tuple[str, ...]:
    """Return the models that a recipe's ``tokenizer`` names."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.models
    return (tokenizer,) if tokenizer else ()


def tokenizer_problems(
    where: str, tokenizer: str | Tokenizer | None, base: str, inputs: Collection[str], models: Collection[str]
) -> Iterator[str]:
    """Yield the problems of a recipe's ``tokenizer``, one line each.

    Args:
        where: The key of the merge or the mixture.
        tokenizer: Its ``tokenizer``.
        base: The model whose tokenizer it has by default.
        inputs: The models that it is made from.
        models: The names of all models of the recipe.
    """
    if not isinstance(tokenizer, Tokenizer):
        return
    where = f"{where}.tokenizer"
    source = tokenizer.source
    if source in {UNION, BASE} and source in models and not (source == BASE == base):
        yield f"{where}.source: {source!r} is also the name of a model; give that model another name"
    if source is None and (tokenizer.tokens or tokenizer.pad_to_multiple_of):
        yield f"{where}.source: missing: union, base, or the name of a model"
    elif source is None and tokenizer.chat_template is None:
        yield f"{where}: is empty; give `source` or `chat_template`, or leave it out"
    for token, entry in tokenizer.tokens.items():
        at = f"{where}.tokens.{token}"
        if not token:
            yield f"{at}: an empty text is not a token"
        given = entry.source
        if isinstance(given, ModelToken) and (given.token is None) == (given.token_id is None):
            yield f"{at}.source: give either `token` or `token_id`"
        yield from (
            f"{at}.source: {model!r} is not one of the models that are joined, so no row can come from it"
            for model in _models_of(entry)
            if model in models and model not in inputs
        )
    yield from _template_problems(f"{where}.chat_template", tokenizer.chat_template, models)


def _template_problems(where: str, template: str | None, models: Collection[str]) -> Iterator[str]:
    if template is None:
        return
    names = {AUTO, *TEMPLATES}
    if template in names and template in models:
        yield f"{where}: {template!r} is also the name of a model; give that model another name"
    is_text = len(template) >= SHORTEST_TEMPLATE and "{" in template
    if template not in names and template not in models and not is_text:
        yield (
            f"{where}: {template!r} is neither a chat template nor the name of one"
            f"{did_you_mean(template, [*names, *models])}"
        )


def _models_of(token: Token) -> tuple[str, ...]:
    match token.source:
        case Zero():
            return ()
        case ModelToken(model=model):
            return (model,)
        case name:
            return (name,)
