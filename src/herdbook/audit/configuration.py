"""What a merge claims about itself: the configuration that mergekit left in its folder or its card.

It is untrusted. It can name models, but no paths: nothing on this machine is read because a card names it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.errors import RecipeError, UnverifiedError
from herdbook.recipe.mergekit import KINDS, find_configuration, split_reference
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.release.subject import Subject

FILES = ("mergekit_moe_config.yml", "mergekit_config.yml", "README.md")  # the first one that exists is read
MAX_BYTES = 1_000_000  # of a card, or a configuration
MAX_EXPERTS = 256
MAX_LAYERS = 1000
MAX_MODELS = 300
MIXTURE = "moe"
PASSTHROUGH = "passthrough"
_REFERENCE = re.compile(r"[^\x00-\x1f\x7f]{1,300}")
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
    for name in FILES:
        if name in subject.files:
            _check_size(subject.files[name].size_bytes, name)
            return parse(subject.read(name, MAX_BYTES), name)
    raise UnverifiedError(
        f"{subject.name}: has neither {', '.join(FILES[:-1])} nor a card; pass the configuration with --config FILE"
    )


def _check_size(size_bytes: int, where: str) -> None:
    if size_bytes > MAX_BYTES:
        raise UnverifiedError(
            f"{where}: has more than the {MAX_BYTES} bytes that a configuration may have. Pass a smaller file with --config FILE."
        )


def parse(content: bytes, where: str) -> Configuration:
    """Read a configuration, or the one in a card.

    Raises:
        UnverifiedError: If none is found that can be interpreted.
    """
    try:
        config, _ = find_configuration(content.decode(), where, KINDS)
        return (_mixture if "experts" in config else _dense)(config, where)
    except UnicodeDecodeError as error:
        raise UnverifiedError(f"{where}: is not a text: {error}") from error
    except RecipeError as error:
        raise UnverifiedError(f"{error}. Pass another configuration with --config FILE.") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UnverifiedError(f"{where}: is not a mergekit configuration: {_short(error)}") from error


def _mixture(config: dict[str, Any], where: str) -> Configuration:
    base = _model(config["base_model"], "base_model")
    experts = _experts(config["experts"], "experts")
    shared = _experts(config.get("shared_experts") or [], "shared_experts")
    if not experts:
        raise ValueError("experts: must name at least one")
    return Configuration(
        where,
        MIXTURE,
        base,
        _unique([base, *(expert.source for expert in (*experts, *shared))]),
        _dtype(config.get("dtype")),
        experts,
        shared,
        gate=_word(config.get("gate_mode") or "hidden", "gate_mode"),
        per_token=int(config.get("experts_per_token") or 2),
        architecture=str(config["architecture"])[:40] if config.get("architecture") else None,
    )


def _experts(listed: Any, key: str) -> tuple[ExpertSource, ...]:
    if not isinstance(listed, list) or len(listed) > MAX_EXPERTS:
        raise TypeError(f"{key}: must be a list of at most {MAX_EXPERTS} experts")
    return tuple(
        ExpertSource(
            _model(entry["source_model"], f"{key}.{number}.source_model"),
            bool(entry.get("noise_scale")),
            float(entry["residual_scale"]) if entry.get("residual_scale") is not None else None,
        )
        for number, entry in enumerate(listed)
    )


def _dense(config: dict[str, Any], where: str) -> Configuration:
    method = _word(config["merge_method"], "merge_method")
    base = _model(config["base_model"], "base_model") if config.get("base_model") else None
    slices, listed = config.get("slices") or [], config.get("models") or []
    if not isinstance(slices, list) or not isinstance(listed, list):
        raise TypeError("`slices` and `models` must be lists")
    sources = [source for slice_ in slices for source in slice_["sources"]] + listed
    if len(sources) > MAX_MODELS:
        raise ValueError(f"names more than {MAX_MODELS} models")
    names = [_model(source["model"], "model") for source in sources]
    only_copies = method == PASSTHROUGH and not config.get("parameters")
    only_copies = only_copies and not any(source.get("parameters") for source in sources)
    only_copies = only_copies and all(
        len(slice_["sources"]) == 1 and not slice_.get("parameters") for slice_ in slices
    )
    runs: list[LayerRange] = []
    if only_copies and slices:
        runs = [_run(source, name) for source, name in zip(sources, names, strict=True)]
    elif only_copies and len(names) == 1:
        runs = [LayerRange(names[0], 0, None)]
    return Configuration(
        where,
        method,
        base,
        _unique([*([base] if base else []), *names]),
        _dtype(config.get("out_dtype") or config.get("dtype")),
        runs=tuple(runs),
        tokens_changed=bool(config.get("tokenizer_source") or config.get("tokenizer")),
    )


def _run(source: dict[str, Any], name: str) -> LayerRange:
    first, stop = (int(number) for number in source["layer_range"])
    if not 0 <= first < stop <= MAX_LAYERS:
        raise ValueError(f"layer_range: {first} to {stop} is not a range of layers")
    return LayerRange(name, first, stop)


def _model(reference: Any, key: str) -> str:
    model, lora = split_reference(reference)
    text = f"{model}+{lora}" if lora else model
    if text is None or not _REFERENCE.fullmatch(text):
        raise ValueError(f"{key}: does not name a model")
    return text


def _dtype(name: Any) -> str | None:
    if name is None:
        return None
    if str(name) not in DTYPE_CODES:
        raise ValueError(f"dtype: {str(name)[:40]!r} is not one of {', '.join(DTYPE_CODES)}")
    return DTYPE_CODES[str(name)]


def _word(value: Any, key: str) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError(f"{key}: is not a plain word")
    return value


def _unique(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _short(error: Exception) -> str:
    missing = isinstance(error, KeyError)
    text = f"`{error.args[0]}` is missing" if missing else str(error)
    return text if len(text) <= 200 else f"{text[:200]}…"
