"""mergekit's configurations in mergekit's own terms: what is read from a text before anything is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from herdbook.importing.references import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.importing.value import Value


@dataclass(frozen=True)
class Expert:
    """An expert of a mixture.

    Args:
        value: Its entry.
        model: The model.
        prompts: Its positive prompts.
        negative_prompts: Its negative prompts.
        noise: ``noise_scale``; None if there is no noise.
        scale: ``residual_scale``, or None.
    """

    value: Value
    model: Reference
    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    noise: float | None
    scale: float | None


@dataclass(frozen=True)
class MixtureConfiguration:
    """A configuration of mergekit-moe."""

    value: Value
    base: Reference
    experts: tuple[Expert, ...]
    shared: tuple[Expert, ...]
    gate: str
    per_token: int | None
    architecture: str
    dtype: str | None

    @property
    def references(self) -> Iterator[Reference]:
        """All models that it names, with repetitions."""
        yield self.base
        yield from (expert.model for expert in (*self.experts, *self.shared))


@dataclass(frozen=True)
class Source:
    """A model that takes part in a slice.

    Args:
        value: Its entry.
        model: The model.
        layers: Its first layer, and the one after its last; None for all layers.
        parameters: Its parameters, or None.
    """

    value: Value
    model: Reference
    layers: tuple[int, int] | None
    parameters: Value | None


@dataclass(frozen=True)
class Piece:
    """Consecutive layers of the result.

    Args:
        value: Its entry, or that of the whole configuration.
        sources: The models whose layers they are made of.
        base: The base of this slice alone, or None.
        parameters: The parameters of this slice, or None.
    """

    value: Value
    sources: tuple[Source, ...]
    base: Reference | None = None
    parameters: Value | None = None


@dataclass(frozen=True)
class Token:
    """Where the embedding of a token comes from.

    Args:
        source: A model; a mapping with ``kind``; or None if it cannot be read.
        force: Whether models that have the token take it, too.
    """

    source: Reference | dict[str, Any] | None
    force: bool = False


@dataclass(frozen=True)
class Tokenizer:
    """Which tokenizer the result gets.

    Args:
        source: ``union``, ``base``, or a model.
        tokens: Where the embeddings of single tokens come from.
        pad: The number whose multiple the number of rows is, or None.
    """

    source: Reference | str
    tokens: dict[str, Token] = field(default_factory=dict)
    pad: int | None = None

    @property
    def references(self) -> Iterator[Reference]:
        """All models that it names."""
        rows = (token.source for token in self.tokens.values())
        for found in (
            self.source,
            *(row["model"] if isinstance(row, dict) and "model" in row else row for row in rows),
        ):
            if isinstance(found, Reference):
                yield found


@dataclass(frozen=True)
class DenseConfiguration:
    """A configuration of mergekit-yaml.

    Args:
        value: The configuration.
        method: mergekit's name of the method.
        base: The base, or None.
        pieces: The slices; a single one if whole models are merged.
        parameters: The parameters of the module, then those of the whole configuration.
        dtype: What is computed with, or None.
        out_dtype: What is written, or None.
        tokenizer: ``tokenizer`` or ``tokenizer_source``, or None.
        chat_template: The chat template, or None.
        tokens: Which tokenizer the result gets, as read from ``tokenizer``.
        base_at: The entry that names the base.
        module: The name of the module that it is for; None if it is for whole models.
        modules: The merges of its modules, if it has such; then it has all of their pieces.
    """

    value: Value
    method: str
    base: Reference | None
    pieces: tuple[Piece, ...]
    parameters: tuple[Value, ...] = ()
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer: Value | None = None
    chat_template: str | None = None
    tokens: Tokenizer | None = None
    base_at: Value | None = None
    module: str | None = None
    modules: tuple[DenseConfiguration, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether whole models are merged, not runs of their layers."""
        return len(self.pieces) == 1 and all(source.layers is None for source in self.pieces[0].sources)

    @property
    def references(self) -> Iterator[Reference]:
        """All models that it names, with repetitions."""
        if self.base:
            yield self.base
        for piece in self.pieces:
            if piece.base:
                yield piece.base
            yield from (source.model for source in piece.sources)
        if self.tokens:
            yield from self.tokens.references


Configuration = MixtureConfiguration | DenseConfiguration
