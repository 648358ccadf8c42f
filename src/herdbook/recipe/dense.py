"""What a dense merge can be: one of the methods, for the whole model or for each of its modules."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from herdbook.recipe.merge import (
    Dare,
    Linear,
    Mergekit,
    ModelStock,
    Passthrough,
    Slerp,
    TaskArithmetic,
    Ties,
)
from herdbook.recipe.search import Search
from herdbook.recipe.section import Dtype, Name, Section

OfModule = Annotated[
    Linear | Slerp | TaskArithmetic | Ties | Dare | ModelStock | Mergekit,
    Field(discriminator="method", description="how the module is merged"),
]
Module = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.]{0,199}$")]


class Modular(Section):
    """Each module of a model merged for itself, such as the text decoder and the vision tower of one that reads images."""

    dtype: ClassVar[None] = None
    out_dtype: ClassVar[None] = None
    vocabulary: ClassVar[None] = None

    method: Literal["modules"]
    modules: dict[Module, OfModule] = Field(
        min_length=1,
        description="a merge for each module: text_decoder, vision_tower (or vision_model), multi_modal_projector, a beginning of "
        "tensors' names, or default, which is all other tensors",
    )
    tokenizer: Name | None = Field(
        None,
        description="the model whose tokenizer, processor and generation config are used; the first model of the first module if "
        "left out",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The merged models, each once, in the order of their first module."""
        return tuple(dict.fromkeys(model for merge in self.modules.values() for model in merge.inputs))

    @property
    def settings(self) -> dict[str, bool | int]:
        """Those of the modules are theirs alone."""
        return {}

    @property
    def ranges(self) -> dict[str, range]:
        """Modules are merged whole."""
        return {}

    @property
    def written_dtype(self) -> Dtype | None:
        """The dtype of the first module that sets one."""
        return next((merge.written_dtype for merge in self.modules.values() if merge.written_dtype), None)

    @property
    def is_as_mergekit(self) -> bool:
        """Whether the bits of a module are those of mergekit."""
        return any(merge.is_as_mergekit for merge in self.modules.values())


Dense = Annotated[
    Linear | Slerp | TaskArithmetic | Ties | Dare | ModelStock | Passthrough | Mergekit | Modular,
    Field(discriminator="method", description="how dense models are merged"),
]


class Merge(Section):
    """A merge of several dense models into one."""

    merge: Dense
    search: Search | None = None
