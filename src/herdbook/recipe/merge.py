"""Dense merges: several models of one form become one, tensor by tensor; or layers of several models are stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from herdbook.recipe.mergekit_methods import mergekit_problems
from herdbook.recipe.section import Dtype, Name, Section
from herdbook.recipe.tokenizer import Vocabulary


def _not_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")  # noqa: TRY004 - pydantic reports only ValueError
    return value


Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_not_boolean)]


class Filtered(Section):
    """A value for some tensors."""

    filter: str | None = Field(
        None,
        description="part of the tensor's name, such as mlp; if left out, the value applies to all other tensors",
    )
    value: Number | Annotated[list[Number], Field(min_length=1)]


Value = Annotated[
    Number | Annotated[list[Number], Field(min_length=1)] | Annotated[list[Filtered], Field(min_length=1)],
    Field(
        description="a number; a list of numbers, interpolated over the layers; or a list of {filter, value}, where the "
        "first entry that matches a tensor's name applies"
    ),
]


class Weighted(Section):
    """A model of a merge, with its weight."""

    model: Name
    weight: Value = 1.0


class Sparsified(Weighted):
    """A model of a merge, with its weight and the share of its task vector that is kept."""

    density: Value = Field(
        1.0, description="share of the task vector's elements that is kept, above 0 and at most 1"
    )


class _Merge(Section):
    dtype: Dtype | None = Field(None, description="dtype of the result; the first model's if left out")
    tokenizer: Vocabulary | None = Field(
        None,
        description="the model whose tokenizer and generation config are used, the first if left out; or how a vocabulary "
        "is made of those of all models",
    )

    @property
    def settings(self) -> dict[str, bool | int]:
        """The settings of the method: those of ``normalize``, ``rescale`` and ``seed`` that it has."""
        return {}


class _Sum(_Merge):
    normalize: bool

    @property
    def settings(self) -> dict[str, bool | int]:
        """``normalize``."""
        return {"normalize": self.normalize}


class Linear(_Sum):
    """The weighted mean (model soups: Wortsman et al. 2022, arXiv:2203.05482)."""

    method: Literal["linear"]
    models: list[Weighted] = Field(min_length=1)
    normalize: bool = Field(True, description="divide by the sum of the weights")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The models."""
        return tuple(entry.model for entry in self.models)


class Slerp(_Merge):
    """Interpolation along the great circle from one model to another (Shoemake 1985)."""

    method: Literal["slerp"]
    base: Name = Field(description="the model at t = 0")
    other: Name = Field(description="the model at t = 1")
    t: Value = 0.5

    @property
    def inputs(self) -> tuple[str, ...]:
        """Both models."""
        return (self.base, self.other)


class _TaskVectors(_Sum):
    base: Name = Field(description="the model that is subtracted to get task vectors")
    models: Sequence[Weighted]
    scale: Value = Field(1.0, alias="lambda", description="factor on the merged task vector")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The base, and the models."""
        return (self.base, *(entry.model for entry in self.models))


class TaskArithmetic(_TaskVectors):
    """The base plus a weighted sum of task vectors (Ilharco et al. 2022, arXiv:2212.04089)."""

    method: Literal["task_arithmetic"]
    models: list[Weighted] = Field(min_length=1)
    normalize: bool = Field(False, description="divide the sum by the sum of the weights")


class Ties(_TaskVectors):
    """Trim, elect signs, mean of the elements that agree (Yadav et al. 2023, arXiv:2306.01708)."""

    method: Literal["ties"]
    models: list[Sparsified] = Field(min_length=1)
    normalize: bool = Field(
        True, description="divide by the sum of the weights that agree: a mean, not a sum"
    )


class Dare(_TaskVectors):
    """Drop elements at random and rescale the rest by 1 / density (Yu et al. 2023, arXiv:2311.03099)."""

    method: Literal["dare_linear", "dare_ties"]
    models: list[Sparsified] = Field(min_length=1)
    normalize: bool = Field(
        False, description="divide by the sum of the weights (dare_ties: of those that agree)"
    )
    rescale: bool = Field(True, description="divide the kept elements by the density")
    seed: int = Field(
        0,
        ge=0,
        description="decides, together with the names of tensor and model, which elements are dropped",
    )

    @property
    def settings(self) -> dict[str, bool | int]:
        """``normalize``, ``rescale`` and ``seed``."""
        return {**super().settings, "rescale": self.rescale, "seed": self.seed}


class ModelStock(_Merge):
    """A point between base and mean, by the angle between the task vectors (Jang et al. 2024, arXiv:2403.19522)."""

    method: Literal["model_stock"]
    base: Name = Field(description="the pretrained model that all models were fine-tuned from")
    models: list[Name] = Field(min_length=2)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The base, and its fine-tunes."""
        return (self.base, *self.models)


class Slice(Section):
    """A run of a model's layers."""

    model: Name
    layers: str = Field(pattern=r"^\d+-\d+$", description="such as 0-15 (inclusive)")
    scale: Value | None = Field(None, description="factor on its tensors")

    @property
    def depth(self) -> int:
        """How many layers it has."""
        first, last = (int(number) for number in self.layers.split("-"))
        return max(0, last + 1 - first)


class Passthrough(_Merge):
    """Layers of several models stacked, unchanged (a frankenmerge)."""

    method: Literal["passthrough"]
    slices: list[Slice] = Field(
        min_length=1,
        description="embeddings come from the first slice's model, last norm and head from the last's",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The models of the slices, with repetitions."""
        return tuple(piece.model for piece in self.slices)


class MergekitModel(Section):
    """A model that mergekit merges."""

    model: Name
    parameters: dict[str, Any] = Field(
        {}, description="mergekit's parameters of the model, such as weight, density, epsilon"
    )


class Mergekit(_Merge):
    """A method of mergekit, which runs in an environment of its own."""

    method: Literal[
        "arcee_fusion",
        "breadcrumbs",
        "breadcrumbs_ties",
        "della",
        "della_linear",
        "karcher",
        "multislerp",
        "nearswap",
        "nuslerp",
        "ram",
        "ramplus_tl",
        "sce",
    ]
    base: Name | None = Field(None, description="mergekit's base_model, for methods that have one")
    models: list[MergekitModel] = Field(min_length=1)
    parameters: dict[str, Any] = Field({}, description="mergekit's parameters for all models")
    seed: int = Field(0, ge=0, description="mergekit's --random-seed")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The base if there is one, then the models."""
        return (*([self.base] if self.base else []), *(entry.model for entry in self.models))


Dense = Annotated[
    Linear | Slerp | TaskArithmetic | Ties | Dare | ModelStock | Passthrough | Mergekit,
    Field(discriminator="method", description="how dense models are merged"),
]


class Merge(Section):
    """A merge of several dense models into one."""

    merge: Dense


def merge_problems(where: str, merge: Dense) -> list[str]:
    """Return the problems of a dense merge, one line each; ``where`` is its key in the recipe."""
    problems = []
    if isinstance(merge, Ties | Dare):
        for index, entry in enumerate(merge.models):
            problems += [
                f"{where}.models.{index}.density: {value:g} is not above 0 and at most 1"
                for value in numbers(entry.density)
                if not 0 < value <= 1
            ]
    if isinstance(merge, Slerp):
        problems += [
            f"{where}.t: {value:g} is not between 0 and 1"
            for value in numbers(merge.t)
            if not 0 <= value <= 1
        ]
    if isinstance(merge, Mergekit):
        problems += mergekit_problems(where, merge)
    if isinstance(merge, Passthrough):
        problems += [
            f"{where}.slices.{index}.layers: the range {piece.layers} is empty"
            for index, piece in enumerate(merge.slices)
            if int(piece.layers.split("-")[0]) > int(piece.layers.split("-")[1])
        ]
    return problems


def numbers(value: Any) -> list[float]:
    """Return all numbers in a value."""
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return numbers(value.value) if isinstance(value, Filtered) else [float(value)]
