"""What a GGUF's header follows from, and values that it may leave out or that do not follow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from herdbook.architectures.gguf_equivalent import as_converted
from herdbook.architectures.gguf_forms import form_of
from herdbook.architectures.gguf_tensors import gguf_architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.architectures.gguf_form import Form
    from herdbook.weights.gguf_header import Listed, Value


@dataclass(frozen=True)
class May:
    """A value that a header may leave out, since it is what llama.cpp takes without it.

    Args:
        value: The value.
    """

    value: Value


@dataclass(frozen=True)
class Unknown:
    """A value that does not follow from what is at hand."""


@dataclass(frozen=True)
class Model:
    """What a header follows from.

    Args:
        config: The model's ``config.json``.
        tokenizer: All entries that follow from the tokenizer's files, by key; None without any.
        general: The name and license that are written; None if not stated.
        file_type: llama.cpp's number of the method; None if not stated.
        tensors: The tensors that the header lists.
        imatrix: What is written of an importance matrix; nothing without one, None if not stated.
    """

    config: Mapping[str, Any]
    tokenizer: Mapping[str, Value] | None
    general: Mapping[str, str] | None = None
    file_type: int | None = None
    tensors: tuple[Listed, ...] = ()
    imatrix: Mapping[str, str | int] | None = None

    @property
    def architecture(self) -> str:
        """Its name in a GGUF."""
        return gguf_architecture(self.config)

    @property
    def form(self) -> Form | None:
        """Its form."""
        return form_of(self.config)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The ``config.json`` that the converter was given."""
        return as_converted(self.config)
