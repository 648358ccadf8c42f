"""What the Hub accepts as the front matter of a card, as far as Herdbook writes it. The Hub's client checks nothing offline."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from herdbook.errors import StepError
from herdbook.faults import told
from herdbook.recipe.card import HubKeys, Repo, Tag, Text
from herdbook.recipe.hub_values import Languages, Licensed, unique
from herdbook.recipe.section import Section


class _Part(Section):
    model_config = ConfigDict(strict=True)


class Task(_Part):
    """The task of a result."""

    type: Literal["text-generation"]
    name: Text | None = None


class Dataset(_Part):
    """The data of a result."""

    name: Text
    type: Text
    args: dict[str, int] | None = None


class Metric(_Part):
    """A result in one metric."""

    type: str = Field(pattern=r"^[A-Za-z0-9_.@+-]+$")
    value: float
    name: Text | None = None
    args: dict[str, float] | None = None


class Result(_Part):
    """The results in one task."""

    task: Task
    dataset: Dataset
    metrics: list[Metric] = Field(min_length=1)


class ModelIndex(_Part):
    """All results of a model."""

    name: Text
    results: list[Result] = Field(min_length=1)


class FrontMatter(_Part, Licensed, HubKeys):
    """The whole front matter."""

    language: Languages | None = None
    library_name: Literal["transformers", "gguf", "mlx"]
    base_model: Repo | Annotated[list[Repo], Field(min_length=2), AfterValidator(unique)] | None = None
    base_model_relation: Literal["adapter", "finetune", "merge", "quantized"] | None = None
    quantized_by: Text | None = None
    tags: Annotated[list[Tag], Field(min_length=1), AfterValidator(unique)]
    model_index: list[ModelIndex] | None = Field(None, alias="model-index", min_length=1, max_length=1)

    @model_validator(mode="after")
    def _relation_has_a_base(self) -> FrontMatter:
        if self.base_model_relation and not self.base_model:
            raise ValueError("base_model_relation needs base_model")
        return self


def check(data: dict[str, Any]) -> None:
    """Check the front matter of a card.

    Raises:
        StepError: If the Hub would not accept it; the message names each key.
    """
    try:
        FrontMatter.model_validate(data)
    except ValidationError as error:
        problems = [f"card: front matter: {problem}" for problem in told(error, data)]
        raise StepError("\n".join(problems)) from error
