"""What anybody's merge says of itself: the configuration that mergekit left in its folder or its card.

It is untrusted. It can name models, never places: nothing on this machine is read because a card names it.
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

FILES = ("mergekit_moe_config.yml", "mergekit_config.yml", "README.md")  # the first that is there
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
    """Layers that a passthrough merge takes over, one after the other.

    Args:
        source: The model.
        first: Its first layer.
        stop: The layer after the last; None for all layers.
    """

    source: str
    first: int
    stop: int | None


@dataclass(frozen=True)
class Configuration:
    """What a configuration says.

    Args:
        where: Where it was found.
        method: ``moe``, or mergekit's name of a dense method.
        base: The model that a mixture takes everything else from; None if none is named.
        experts: A mixture's experts.
        shared: Its shared experts.
        runs: What a passthrough merge takes over, in order; empty if that is more than copying.
        models: All models that are named, each once.
        dtype: The dtype that is asked for, by the code of safetensors; None for the base's.
        gate: How a mixture's routers were made.
        per_token: How many experts a token gets.
        architecture: The family that is asked for, or None.
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
        config: A file that a person named instead.

    Raises:
        UnverifiedError: If there is none that can be understood.
        SourceError: If it cannot be had.
    """
    if config is not None:
        _check_size(config.stat().st_size, str(config))
        return parse(config.read_bytes(), str(config))
    for name in FILES:
        if name in subject.files:
            _check_size(subject.files[name].size_bytes, name)
            return parse(subject.read(name, MAX_BYTES), name)
    raise UnverifiedError(
        f"{subject.name}: has no {', '.join(FILES[:-1])}, nor a card; name the configuration with --config FILE"
    )


def _check_size(size_bytes: int, where: str) -> None:
    if size_bytes > MAX_BYTES:
        raise UnverifiedError(
            f"{where}: is larger than any configuration ({MAX_BYTES} bytes). Name it with --config FILE."
        )


def parse(content: bytes, where: str) -> Configuration:
    """Read a configuration, or the one in a card.

    Raises:
        UnverifiedError: If there is none that can be understood.
    """
    try:
        found, _ = find_configuration(content.decode(), where, KINDS)
        return (_mixture if "experts" in found else _dense)(found, where)
    except UnicodeDecodeError as error:
        raise UnverifiedError(f"{where}: is no text: {error}") from error
    except RecipeError as error:
        raise UnverifiedError(f"{error}. Name a better one with --config FILE.") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UnverifiedError(f"{where}: is no configuration of mergekit: {_short(error)}") from error


def _mixture(config: dict[str, Any], where: str) -> Configuration:
    base = _model(config["base_model"], "base_model")
    experts = _experts(config["experts"], "experts")
    shared = _experts(config.get("shared_experts") or [], "shared_experts")
    if not experts:
        raise ValueError("experts: at least one is needed")
    return Configuration(
        where,
        MIXTURE,
        base,
        _once([base, *(one.source for one in (*experts, *shared))]),
        _dtype(config.get("dtype")),
        experts,
        shared,
        gate=_word(config.get("gate_mode") or "hidden", "gate_mode"),
        per_token=int(config.get("experts_per_token") or 2),
        architecture=str(config["architecture"])[:40] if config.get("architecture") else None,
    )


def _experts(found: Any, key: str) -> tuple[ExpertSource, ...]:
    if not isinstance(found, list) or len(found) > MAX_EXPERTS:
        raise TypeError(f"{key}: a list of no more than {MAX_EXPERTS} is needed")
    return tuple(
        ExpertSource(
            _model(one["source_model"], f"{key}.{number}.source_model"),
            bool(one.get("noise_scale")),
            float(one["residual_scale"]) if one.get("residual_scale") is not None else None,
        )
        for number, one in enumerate(found)
    )


def _dense(config: dict[str, Any], where: str) -> Configuration:
    method = _word(config["merge_method"], "merge_method")
    base = _model(config["base_model"], "base_model") if config.get("base_model") else None
    slices, listed = config.get("slices") or [], config.get("models") or []
    if not isinstance(slices, list) or not isinstance(listed, list):
        raise TypeError("`slices` and `models` are lists")
    given = [source for one in slices for source in one["sources"]] + listed
    if len(given) > MAX_MODELS:
        raise ValueError(f"no more than {MAX_MODELS} models are read")
    named = [_model(source["model"], "model") for source in given]
    plain = method == PASSTHROUGH and not config.get("parameters")
    plain = plain and not any(source.get("parameters") for source in given)
    plain = plain and all(len(one["sources"]) == 1 and not one.get("parameters") for one in slices)
    runs: list[LayerRange] = []
    if plain and slices:
        runs = [_run(source, name) for source, name in zip(given, named, strict=True)]
    elif plain and len(named) == 1:
        runs = [LayerRange(named[0], 0, None)]
    return Configuration(
        where,
        method,
        base,
        _once([*([base] if base else []), *named]),
        _dtype(config.get("out_dtype") or config.get("dtype")),
        runs=tuple(runs),
        tokens_changed=bool(config.get("tokenizer_source") or config.get("tokenizer")),
    )


def _run(source: dict[str, Any], name: str) -> LayerRange:
    first, stop = (int(number) for number in source["layer_range"])
    if not 0 <= first < stop <= MAX_LAYERS:
        raise ValueError(f"layer_range: {first} to {stop} are no layers")
    return LayerRange(name, first, stop)


def _model(reference: Any, key: str) -> str:
    model, lora = split_reference(reference)
    text = f"{model}+{lora}" if lora else model
    if text is None or not _REFERENCE.fullmatch(text):
        raise ValueError(f"{key}: names no model")
    return text


def _dtype(said: Any) -> str | None:
    if said is None:
        return None
    if str(said) not in DTYPE_CODES:
        raise ValueError(f"dtype: {str(said)[:40]!r} is none of {', '.join(DTYPE_CODES)}")
    return DTYPE_CODES[str(said)]


def _word(said: Any, key: str) -> str:
    if not isinstance(said, str) or not _WORD.fullmatch(said):
        raise ValueError(f"{key}: is no plain word")
    return said


def _once(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _short(error: Exception) -> str:
    missing = isinstance(error, KeyError)
    text = f"`{error.args[0]}` is missing" if missing else str(error)
    return text if len(text) <= 200 else f"{text[:200]}…"
