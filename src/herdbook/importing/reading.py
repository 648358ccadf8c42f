"""Reading a configuration from a text: its form, before anything is made of it. All that is wrong is noted, with line and key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.importing import methods, references
from herdbook.importing.configuration import (
    DenseConfiguration,
    Expert,
    MixtureConfiguration,
    Piece,
    Source,
    Token,
    Tokenizer,
)
from herdbook.importing.keys import MERGED, corrected, identified
from herdbook.importing.scalars import boolean, number, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.importing.configuration import Configuration
    from herdbook.importing.references import Reference
    from herdbook.importing.value import Value

MIXTURE = "moe"
PLAIN_MODULE = "default"  # mergekit's name of the only module of a model of text
OF_MODEL = "model:"  # before the model of `tokenizer_source`, as mergekit wrote it until 2024


def read(value: Value) -> Configuration | None:
    """Return a configuration as far as it can be read; None if it cannot. All problems are noted."""
    value = identified(value)
    method = value.get("merge_method")
    is_mixture = "experts" in value.content or (method is not None and method.content == MIXTURE)
    return _mixture(value) if is_mixture else _dense(value)


def _mixture(value: Value) -> MixtureConfiguration | None:
    value = corrected(corrected(value, "base_model"), "experts")
    base = _reference(value.required("base_model"))
    value.required("experts")
    experts = [_expert(entry) for entry in value.entries("experts")]
    shared = [_expert(entry) for entry in value.entries("shared_experts")]
    if value.content.get("experts") == []:
        value.child("experts").refuse("names no expert")
    gate, architecture = value.get("gate_mode"), value.get("architecture")
    per_token = value.get("experts_per_token")
    count = None if per_token is None else whole_number(per_token)
    if count is not None and count < 1:
        value.child("experts_per_token").refuse(f"{count} is not above 0")
    if base is None:
        return None
    return MixtureConfiguration(
        value,
        base,
        tuple(expert for expert in experts if expert),
        tuple(expert for expert in shared if expert),
        (gate.text() or "" if gate else "") or "hidden",
        count,
        architecture.text() or "" if architecture else "",
        _dtype(value.get("dtype")),
    )


def _expert(value: Value) -> Expert | None:
    if not value.is_mapping():
        return None
    model = _reference(value.required("source_model"))
    noise, scale = (
        None if (entry := value.get(key)) is None else number(entry)
        for key in ("noise_scale", "residual_scale")
    )
    positive, negative = (tuple(_texts(value, key)) for key in ("positive_prompts", "negative_prompts"))
    return Expert(value, model, positive, negative, noise or None, scale) if model else None


def _texts(value: Value, key: str) -> Iterator[str]:
    for entry in value.entries(key):
        text = entry.text()
        if text is not None:
            yield text


def _dense(value: Value) -> DenseConfiguration | None:
    if not any(value.content.get(key) for key in MERGED):
        value = corrected(corrected(value, "models", "slices", kind=list), "modules", kind=dict)
    contents = [key for key in MERGED if value.content.get(key)]
    if len(contents) != 1:
        found = f", found {' and '.join(contents)}" if contents else ""
        value.refuse(f"expected exactly one of `models`, `slices` and `modules`{found}")
        if (given := value.get("merge_method")) is not None and isinstance(given.content, str):
            methods.refuse_unknown(given.content, given)
        return None
    if contents == ["modules"]:
        return _modules(value, value.child("modules"))
    return _whole(value, value)


def _modules(value: Value, modules: Value) -> DenseConfiguration | None:
    """Return a merge whose settings are those of its modules; mergekit calls the only one of a model of text ``default``."""
    listed = list(modules.items()) if modules.is_mapping() else []
    read = [_module(value, module) for module in listed]
    if not read or None in read:
        return None
    parts = tuple(part for part in read if part)
    if [part.module for part in parts] == [PLAIN_MODULE]:
        return replace(parts[0], module=None)
    pieces = tuple(piece for part in parts for piece in part.pieces)
    own = (replace(part, tokenizer=None, chat_template=None, tokens=None) for part in parts)
    return replace(parts[0], pieces=pieces, parameters=(), module=None, modules=tuple(own))


def _module(value: Value, inner: Value) -> DenseConfiguration | None:
    """Return the merge of a module; None if it is not one."""
    if not inner.is_mapping():
        return None
    inner = corrected(inner, "models", "slices")
    if value.get("merge_method") is None:
        inner = corrected(inner, "merge_method")
    if sum(bool(inner.content.get(key)) for key in ("models", "slices")) != 1:
        inner.refuse("expected exactly one of `models` and `slices`")
        return None
    return _whole(value, inner)


def _whole(value: Value, inner: Value) -> DenseConfiguration:
    """Return a merge; ``inner`` is the entry of its module, or the whole configuration if it has none."""

    def setting(key: str) -> Value | None:
        own = inner.get(key)
        return value.get(key) if own is None else own

    levels = [inner.get("parameters"), *([value.get("parameters")] if inner is not value else [])]
    method = setting("merge_method")
    name = value.required("merge_method") and "" if method is None else method.text()
    base = setting("base_model")
    source, tokenizer = setting("tokenizer_source"), setting("tokenizer")
    if source is not None and tokenizer is not None:
        source.refuse("cannot be given beside `tokenizer`, which has replaced it")
    chosen = source if tokenizer is None else tokenizer
    return DenseConfiguration(
        value,
        name or "",
        _reference(base),
        tuple(_pieces(inner)),
        tuple(level for level in levels if level is not None and level.is_mapping()),
        _dtype(setting("dtype")),
        _dtype(setting("out_dtype")),
        chosen,
        template.text() if (template := setting("chat_template")) is not None else None,
        None if chosen is None else read_tokenizer(chosen),
        base,
        None if inner is value else str(inner.keys[-1]),
    )


def read_tokenizer(value: Value) -> Tokenizer | None:
    """Return which tokenizer the result gets; None if that has problems."""
    if isinstance(value.content, str) or not isinstance(value.content, dict) or "model" in value.content:
        source = _tokens_from(value)
        return Tokenizer(source) if source else None
    value_source = value.get("source")
    source = "union" if value_source is None else _tokens_from(value_source)
    tokens: dict[str, Token] = {}
    listed = value.get("tokens")
    for entry in listed.items() if listed is not None and listed.is_mapping() else ():
        token = str(entry.keys[-1])
        if not entry.is_mapping():
            continue
        if entry.get("source") is None:
            entry.refuse(
                "`source` is missing: mergekit fails if a model does not have the token. Name the model whose row counts, or leave "
                "the entry out if all have it"
            )
        forced = entry.get("force")
        tokens[token] = Token(_row(entry.get("source")), forced is not None and bool(boolean(forced)))
    pad = value.get("pad_to_multiple_of")
    return Tokenizer(source, tokens, None if pad is None else whole_number(pad)) if source else None


def _tokens_from(value: Value) -> Reference | str | None:
    given = value.content
    if isinstance(given, str) and given in {"union", "base"}:
        return given
    if isinstance(given, str) and given.startswith(OF_MODEL):
        value = replace(value, content=given.removeprefix(OF_MODEL))
    return references.read(value)


def _row(value: Value | None) -> Reference | dict[str, Any] | None:
    """Return where the row of a token comes from: a model, or a mapping with ``kind``."""
    if value is None or not isinstance(value.content, dict) or "kind" not in value.content:
        return _reference(value)
    kind = value.child("kind")
    if kind.content == "zero":
        return {"kind": "zero"}
    if kind.content != "model_token":
        kind.refuse(f"{kind.shown} is neither model_token nor zero")
        return None
    model = _reference(value.required("model"))
    given = {key: value.content[key] for key in ("token", "token_id") if value.content.get(key) is not None}
    if len(given) != 1:
        value.refuse("expected exactly one of `token` and `token_id`")
    return model and {"kind": "model_token", "model": model, **given}


def _pieces(value: Value) -> Iterator[Piece]:
    if value.content.get("models"):
        listed = value.child("models")
        sources = [_source(entry, ranged=False) for entry in value.entries("models")]
        yield Piece(listed, tuple(source for source in sources if source))
        return
    for entry in value.entries("slices"):
        if not entry.is_mapping() or entry.required("sources") is None:
            continue
        sources = [_source(one, ranged=True) for one in entry.entries("sources")]
        known = tuple(source for source in sources if source)
        counts = {source.layers[1] - source.layers[0] for source in known if source.layers}
        if len(counts) > 1:
            entry.refuse(
                f"its sources have different numbers of layers: {', '.join(map(str, sorted(counts)))}"
            )
        if entry.content["sources"] == []:
            entry.child("sources").refuse("names no model")
        yield Piece(entry, known, _reference(entry.get("base_model")), entry.get("parameters"))


def _source(value: Value, *, ranged: bool) -> Source | None:
    if not value.is_mapping():
        return None
    model = _reference(value.required("model"))
    parameters = value.get("parameters")
    layers = _range(value) if ranged else None
    if parameters is not None and not parameters.is_mapping():
        parameters = None
    return Source(value, model, layers, parameters) if model else None


def _range(value: Value) -> tuple[int, int] | None:
    found = value.required("layer_range")
    if found is None:
        return None
    numbers = [whole_number(entry) for entry in value.entries("layer_range")]
    if None in numbers or not isinstance(found.content, list):
        return None
    if len(numbers) != 2 or not 0 <= numbers[0] < numbers[1] <= limits.LAYERS:  # type: ignore[operator]  # no None is left
        found.refuse(
            f"{found.shown} is not a range of layers: expected the first one, and the one after the last, such as [0, 32]"
        )
        return None
    return numbers[0], numbers[1]  # type: ignore[return-value]


def _reference(value: Value | None) -> Reference | None:
    return None if value is None else references.read(value)


def _dtype(value: Value | None) -> str | None:
    if value is None:
        return None
    text = value.text()
    return None if text is None else text.removeprefix("torch.")
