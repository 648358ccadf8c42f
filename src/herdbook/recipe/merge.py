"""Dense merges: several models of one form become one, tensor by tensor; or layers of several models are stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from herdbook.recipe.mergekit_methods import METHODS
from herdbook.recipe.section import Dtype, Name, Section
from herdbook.recipe.tokenizer import Vocabulary


def _not_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")  # noqa: TRY004 - pydantic reports only ValueError
    return value


# The implementation whose bits a merge has. In mergekit 0.1.4, some methods have other formulas.
MergeSemantics = Literal["native-1", "mergekit-0.1.5"]
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_not_boolean)]


# Consecutive layers, from the first to the last.
Layers = Annotated[str, Field(pattern=r"^\d{1,6}-\d{1,6}$")]


def layer_range(layers: Layers) -> range:
    """Return the numbers of the layers in a text such as 0-15."""
    first, last = (int(number) for number in layers.split("-"))
    return range(first, last + 1)


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
    dtype: Dtype | None = Field(
        None,
        description="dtype of the numbers that are merged, and of the result; the first model's if left out",
    )
    out_dtype: Dtype | None = Field(
        None, description="dtype of the result, if it is another one than `dtype`"
    )
    tokenizer: Vocabulary | None = Field(
        None,
        description="the model whose tokenizer and generation config are used, the first if left out; or how a vocabulary "
        "is made of those of all models",
    )

    @property
    def settings(self) -> dict[str, bool | int]:
        """The settings of the method: those of ``normalize``, ``rescale``, ``filter_wise`` and ``seed`` that it has."""
        return {}

    @property
    def ranges(self) -> dict[str, range]:
        """Which layers of each model are merged; empty if all are."""
        return {}

    @property
    def written_dtype(self) -> Dtype | None:
        """The dtype of the result, if the recipe sets one."""
        return self.out_dtype or self.dtype

    @property
    def is_as_mergekit(self) -> bool:
        """Whether the bits are those of mergekit."""
        return True


class Joined(_Merge):
    """A merge of whole models, or of a run of layers of each."""

    layers: Layers | dict[Name, Layers] | None = Field(
        None,
        description="which layers of each model are merged, such as 0-15 (inclusive), or a mapping {model: 0-15, ...} of "
        "equally many layers; all if left out",
    )
    vocabulary: Literal["crop"] | None = Field(
        None,
        description="crop: embeddings and head have as many rows as those of the model with the fewest, the first ones, as with "
        "mergekit's --unsafe-truncate-embeddings. If left out, models with different numbers of rows are refused",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The merged models, with repetitions."""
        raise NotImplementedError

    @property
    def ranges(self) -> dict[str, range]:
        """Which layers of each model are merged; empty if all are."""
        if self.layers is None:
            return {}
        one = dict.fromkeys(self.inputs, self.layers) if isinstance(self.layers, str) else self.layers
        return {name: layer_range(layers) for name, layers in one.items()}


class _Native(_Merge):
    semantics: MergeSemantics = Field(
        "native-1",
        description="native-1 computes in float32, and rounds once; mergekit-0.1.5 has mergekit's bits: it rounds all models to "
        "`dtype`, and computes in it",
    )

    @property
    def is_as_mergekit(self) -> bool:
        """Whether the bits are those of mergekit."""
        return self.semantics != "native-1"


class _Sum(_Native, Joined):
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


class Slerp(_Native, Joined):
    """Interpolation along the great circle from one model to another (Shoemake 1985)."""

    method: Literal["slerp"]
    base: Name = Field(description="the model at t = 0")
    other: Name = Field(description="the model at t = 1")
    t: Value = 0.5

    @property
    def inputs(self) -> tuple[str, ...]:
        """Both models."""
        return (self.base, self.other)


class TaskVectors(_Sum):
    """A base plus what other models differ from it in, summed up."""

    base: Name = Field(description="the model that is subtracted to get task vectors")
    models: Sequence[Weighted]
    scale: Value = Field(1.0, alias="lambda", description="factor on the merged task vector")

    @property
    def others(self) -> tuple[tuple[int, Weighted], ...]:
        """The models besides the base, with their places in ``models``; the base may be listed, and takes no part."""
        return tuple((index, entry) for index, entry in enumerate(self.models) if entry.model != self.base)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The base, and the other models."""
        return (self.base, *(entry.model for _, entry in self.others))


class TaskArithmetic(TaskVectors):
    """The base plus a weighted sum of task vectors (Ilharco et al. 2022, arXiv:2212.04089)."""

    method: Literal["task_arithmetic"]
    models: list[Weighted] = Field(min_length=1)
    normalize: bool = Field(False, description="divide the sum by the sum of the weights")


class Ties(TaskVectors):
    """Trim, elect signs, mean of the elements that agree (Yadav et al. 2023, arXiv:2306.01708)."""

    method: Literal["ties"]
    models: list[Sparsified] = Field(min_length=1)
    normalize: bool = Field(
        True, description="divide by the sum of the weights that agree: a mean, not a sum"
    )
    rescale: bool = Field(
        False, description="multiply what is kept, so that the sum of magnitudes stays what it was"
    )

    @property
    def settings(self) -> dict[str, bool | int]:
        """``normalize``, and ``rescale`` if it is on."""
        return {**super().settings, **({"rescale": True} if self.rescale else {})}


class Dare(TaskVectors):
    """Drop elements at random and rescale the rest by 1 / density (Yu et al. 2023, arXiv:2311.03099)."""

    method: Literal["dare_linear", "dare_ties"]
    models: list[Sparsified] = Field(min_length=1)
    normalize: bool = Field(
        False, description="divide by the sum of the weights (dare_ties: of those that agree)"
    )
    rescale: bool = Field(
        True,
        description="divide the kept elements by the density; with mergekit's semantics multiply them, so that the sum of "
        "magnitudes stays what it was",
    )
    seed: int = Field(
        0,
        ge=0,
        description="decides, together with the names of tensor and model, which elements are dropped",
    )

    @property
    def settings(self) -> dict[str, bool | int]:
        """``normalize``, ``rescale`` and ``seed``."""
        return {**super().settings, "rescale": self.rescale, "seed": self.seed}


class ModelStock(_Native, Joined):
    """A point between base and mean, by the angle between the task vectors (Jang et al. 2024, arXiv:2403.19522)."""

    method: Literal["model_stock"]
    base: Name = Field(description="the pretrained model that all models were fine-tuned from")
    models: list[Name] = Field(min_length=2)
    filter_wise: bool = Field(
        False, description="an angle for each row of a matrix, not for the whole tensor"
    )

    @property
    def settings(self) -> dict[str, bool | int]:
        """``filter_wise`` if it is on."""
        return {"filter_wise": True} if self.filter_wise else {}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The base, and its fine-tunes; the base may be listed among them, and takes no part."""
        return (self.base, *(model for model in self.models if model != self.base))


class Slice(Section):
    """A run of a model's layers."""

    model: Name
    layers: Layers = Field(description="such as 0-15 (inclusive)")
    scale: Value | None = Field(None, description="factor on its tensors")

    @property
    def depth(self) -> int:
        """How many layers it has."""
        return len(layer_range(self.layers))


class Passthrough(_Native):
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
    """A model of a merge whose parameters have mergekit's names."""

    model: Name
    parameters: dict[str, Any] = Field(
        {}, description="mergekit's parameters of the model, such as weight, density, epsilon"
    )


class Mergekit(Joined):
    """A method of mergekit, with its parameters under its names."""

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
    seed: int = Field(
        0,
        ge=0,
        description="of della and della_linear: decides, together with the names of tensor and model, which elements are dropped",
    )

    @property
    def settings(self) -> dict[str, bool | int]:
        """``seed``, if the method draws random numbers."""
        return {"seed": self.seed} if METHODS[self.method].draws else {}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The base, if any, then the other models; the base may be listed, and takes no part."""
        others = (entry.model for entry in self.models if entry.model != self.base)
        return (*([self.base] if self.base else []), *others)
