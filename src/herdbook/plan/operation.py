"""How parts are made: all operations. Those of LASER and of mixtures are in modules of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from herdbook.plan.interface import CalibrationText, Interface, Parameters, Rule, Values
from herdbook.plan.mixing import DrawRouters, ExpertScale, LineUp, MakeRouters, PerturbExperts
from herdbook.plan.reduction import Reduce, ReduceAsSearched, Whitening
from herdbook.quantization.schemes import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.quantization.scheme import SchemeName

__all__ = [
    "CalibrationText",
    "CompressTensors",
    "DrawRouters",
    "ExpertScale",
    "FetchFile",
    "FetchGguf",
    "FetchRanges",
    "FoldAdapter",
    "LineUp",
    "MakeRouters",
    "MergeTensors",
    "Operation",
    "Parameters",
    "PerturbExperts",
    "Reduce",
    "ReduceAsSearched",
    "Rule",
    "TakeOver",
    "Values",
    "Whitening",
]

# -- sources -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FetchFile(Interface):
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
class FetchRanges(Interface):
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
class FetchGguf(Interface):
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
class TakeOver(Interface):
    """Tensors of parents are copied, cast to another dtype or stacked, as the part's tensors fully describe.

    Args:
        rule: The rule of the model that the part belongs to.
    """

    rule: Rule

    @property
    def parameters(self) -> Parameters:
        """Empty."""
        return {}


# -- adapters --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoldAdapter(Interface):
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
class MergeTensors(Interface):
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


# -- formats for GPU servers and Macs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CompressTensors(Interface):
    """Matrices are encoded.

    Args:
        scheme: The name of the format.
    """

    rule: ClassVar[Rule] = "compress"
    scheme: SchemeName

    @property
    def parameters(self) -> Parameters:
        """The scheme."""
        return {"scheme": self.scheme}

    @property
    def header(self) -> str:
        """The entry ``format`` in the header of the shard, as the readers of the format write it."""
        return SCHEMES[self.scheme].header


Operation: TypeAlias = (
    FetchFile
    | FetchRanges
    | FetchGguf
    | TakeOver
    | Reduce
    | ReduceAsSearched
    | FoldAdapter
    | MergeTensors
    | CompressTensors
    | PerturbExperts
    | LineUp
    | MakeRouters
    | DrawRouters
)
