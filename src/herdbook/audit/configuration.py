"""What a merge claims about itself: the configuration that mergekit left in its folder or its card.

It is untrusted. It can name models, but no paths: nothing on this machine is read because a card names it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from herdbook.errors import RecipeError, UnverifiedError
from herdbook.importing.configuration import MixtureConfiguration
from herdbook.importing.finding import find as find_configurations
from herdbook.importing.mixtures import PER_TOKEN
from herdbook.importing.steps import Steps, steps_of
from herdbook.importing.value import Notes
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.importing.configuration import DenseConfiguration, Expert, Source
    from herdbook.release.subject import Subject

FILES = ("mergekit_moe_config.yml", "mergekit_config.yml", "README.md")  # the first one that exists is read
MAX_BYTES = 1_000_000  # of a card, or a configuration
MAX_EXPERTS = 256
MAX_LAYERS = 1000
MAX_MODELS = 300
MIXTURE = "moe"
PASSTHROUGH = "passthrough"
_WORD = re.compile(r"[\w-]{1,40}", re.ASCII)


@dataclass(frozen=True)
class ExpertSource:
    """An expert as a configuration names it.

    Args:
        source: The model, ``path[@revision]``.
        noisy: Whether noise was added to its matrices.
        scale: What its ``down_proj`` was multiplied by, or None.
    """

    source: str
    noisy: bool = False
    scale: float | None = None


@dataclass(frozen=True)
class LayerRange:
    """Consecutive layers that a passthrough merge copies from a model.

    Args:
        source: The model.
        first: The first layer.
        stop: The layer after the last one; None for all layers.
    """

    source: str
    first: int
    stop: int | None


@dataclass(frozen=True)
class Configuration:
    """The content of a configuration.

    Args:
        where: The file that it was found in.
        method: ``moe``, or mergekit's name of a dense method.
        base: The model that a mixture takes all other tensors from; None if none is named.
        experts: A mixture's experts.
        shared: A mixture's shared experts.
        runs: The layers that a passthrough merge copies, in order; empty if it does more than copy.
        models: All named models, each once.
        dtype: The requested dtype, by the code of safetensors; None for the base's.
        gate: How a mixture's routers were made.
        per_token: The number of experts per token.
        architecture: The requested family, or None.
        tokens_changed: Whether embeddings were made for another vocabulary.
        text: The text that it was found in.
        is_several: Whether it builds on other configurations in the same text.
    """

    where: str
    method: str
    base: str | None
    models: tuple[str, ...]
    dtype: str | None = None
    experts: tuple[ExpertSource, ...] = ()
    shared: tuple[ExpertSource, ...] = ()
    runs: tuple[LayerRange, ...] = ()
    gate: str = "hidden"
    per_token: int = 2
    architecture: str | None = None
    tokens_changed: bool = False
    text: str = ""
    is_several: bool = False


def find(subject: Subject, config: Path | None) -> Configuration:
    """Find and read the configuration of a merge.

    Args:
        subject: The merge.
        config: A file that the user named instead.

    Raises:
        UnverifiedError: If none is found that can be interpreted.
        SourceError: If it cannot be read.
    """
    if config is not None:
        _check_size(config.stat().st_size, str(config))
        return parse(config.read_bytes(), str(config))
    found = text_of(subject)
    if found is None:
        raise UnverifiedError(
            f"{subject.name}: has neither {', '.join(FILES[:-1])} nor a card; pass the configuration with --config FILE"
        )
    return parse(*found)


def text_of(subject: Subject) -> tuple[bytes, str] | None:
    """Return the text in which a merge has its configuration, and the name of the file; None if it has none.

    Raises:
        UnverifiedError: If it is too large.
        SourceError: If it cannot be read.
    """
    for name in FILES:
        if name in subject.files:
            _check_size(subject.files[name].size_bytes, name)
            return subject.read(name, MAX_BYTES), name
    return None


def _check_size(size_bytes: int, where: str) -> None:
    if size_bytes > MAX_BYTES:
        raise UnverifiedError(
            f"{where}: has more than the {MAX_BYTES} bytes that a configuration may have. Pass a smaller file with --config FILE."
        )


def parse(content: bytes, where: str) -> Configuration:
    """Read a configuration, or the one in a card: of several that build on each other, the last one.

    Raises:
        UnverifiedError: If none is found that can be interpreted.
    """
    notes = Notes()
    try:
        found = find_configurations(content.decode(), notes).found
    except UnicodeDecodeError as error:
        raise UnverifiedError(f"{where}: is not a text: {error}") from error
    except RecipeError as error:
        raise UnverifiedError(f"{where}: {error}. Pass another configuration with --config FILE.") from error
    steps = steps_of(found)
    ends = Steps(steps, notes).ends() if steps and not notes.problems else []
    if len(ends) > 1:
        raise UnverifiedError(
            f"{where}: contains several different configurations. Pass another configuration with --config FILE."
        )
    if not ends:
        notes.refuse("its steps use each other in a circle")
        raise UnverifiedError(f"{where}: is not a mergekit configuration: {_short(notes.problems[0])}")
    last = ends[0].configuration
    try:
        read = _mixture(last, where) if isinstance(last, MixtureConfiguration) else _dense(last, where)
        return replace(read, text=content.decode(), is_several=len(steps) > 1)
    except ValueError as error:
        raise UnverifiedError(f"{where}: is not a mergekit configuration: {_short(str(error))}") from error


def _mixture(read: MixtureConfiguration, where: str) -> Configuration:
    experts, shared = _experts(read.experts, "experts"), _experts(read.shared, "shared_experts")
    return Configuration(
        where,
        MIXTURE,
        str(read.base),
        _unique([str(reference) for reference in read.references]),
        _dtype(read.dtype),
        experts,
        shared,
        gate=_word(read.gate, "gate_mode"),
        per_token=read.per_token or PER_TOKEN,
        architecture=read.architecture[:40] or None,
    )


def _experts(experts: tuple[Expert, ...], key: str) -> tuple[ExpertSource, ...]:
    if len(experts) > MAX_EXPERTS:
        raise ValueError(f"{key}: names more than {MAX_EXPERTS} experts")
    return tuple(ExpertSource(str(one.model), one.noise is not None, one.scale) for one in experts)


def _dense(read: DenseConfiguration, where: str) -> Configuration:
    method = _word(read.method, "merge_method")
    sources = [source for piece in read.pieces for source in piece.sources]
    if len(sources) > MAX_MODELS:
        raise ValueError(f"names more than {MAX_MODELS} models")
    parameters = (
        *read.parameters,
        *(one.parameters for one in read.pieces),
        *(one.parameters for one in sources),
    )
    only_copies = method == PASSTHROUGH and not any(one is not None and one.content for one in parameters)
    only_copies = only_copies and not read.modules and all(len(piece.sources) == 1 for piece in read.pieces)
    return Configuration(
        where,
        method,
        str(read.base) if read.base else None,
        _unique([str(reference) for reference in read.references]),
        _dtype(read.out_dtype or read.dtype),
        runs=tuple(_run(source) for source in sources) if only_copies else (),
        tokens_changed=read.tokenizer is not None,
    )


def _run(source: Source) -> LayerRange:
    if source.layers is None:
        return LayerRange(str(source.model), 0, None)
    first, stop = source.layers
    if stop > MAX_LAYERS:
        raise ValueError(f"layer_range: {first} to {stop} is not a range of layers")
    return LayerRange(str(source.model), first, stop)


def _dtype(name: str | None) -> str | None:
    if name is None:
        return None
    if name not in DTYPE_CODES:
        raise ValueError(f"dtype: {name[:40]!r} is not one of {', '.join(DTYPE_CODES)}")
    return DTYPE_CODES[name]


def _word(value: str, key: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(f"{key}: is not a plain word")
    return value


def _unique(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
