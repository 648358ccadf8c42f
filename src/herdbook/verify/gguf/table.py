"""Each key of a GGUF's header, and what it follows from: the table by which headers are derived, compared and documented.

It states what llama.cpp's converter writes for the architectures that are converted (``architectures.gguf_forms``), from the
files that it is given. A key that is not in it is never written for them. Keys that begin with ``*`` begin with the name of the
architecture in a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

from herdbook.architectures.conversion import (
    HYPERPARAMETERS,
    TOKENIZERS,
    attention_factor,
    original_length,
    scaled_by,
)
from herdbook.architectures.defaults import default_of, value_of
from herdbook.architectures.dense import rope_of
from herdbook.architectures.gguf_equivalent import as_converted
from herdbook.architectures.gguf_forms import EXPERT_COUNTS, form_of
from herdbook.architectures.gguf_tensors import gguf_architecture
from herdbook.architectures.layers import FULL, SLIDING
from herdbook.verify.gguf.special import ADDS, IDS, special_entries, templates
from herdbook.verify.gguf.tokens import TokenizerFiles, token_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from herdbook.architectures.gguf_forms import Form
    from herdbook.weights.gguf_header import Listed, Value

FROM_CONFIG, FROM_TOKENIZER, FROM_RECIPE, FROM_TENSORS, FROM_CONVERTER = (
    "`config.json`",
    "the tokenizer's files",
    "the recipe",
    "the tensors' shapes",
    "the converter, rerun",
)
PRE = "tokenizer.ggml.pre"
TEMPLATE = "tokenizer.chat_template"
OWN = "*."  # the start of keys that begin with the architecture's name
# Architectures whose width of rotary embeddings and number of rows of embeddings are written.
_WITH_WIDTHS = ("llama", "smollm3", "granite", "granitemoe")
_ORIGINAL_LENGTH = "original_max_position_embeddings"
_GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}  # llama.cpp's numbers
QUANTIZATION_VERSION = 2  # ggml's, of the encodings


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


def tokenizer_entries(
    config: Mapping[str, Any], names: Collection[str], read: Callable[[str], bytes]
) -> dict[str, Value] | None:
    """Return all entries that follow from the tokenizer's files, by key; None without such files.

    Args:
        config: The model's ``config.json``.
        names: The names of the model's files.
        read: Returns the content of one of them.

    Raises:
        SourceError: If a file is not of its format.
        ValueError, LookupError, TypeError, AttributeError: The same.
    """
    if not any(name in names for name in TOKENIZERS):
        return None
    files = TokenizerFiles(names, read)
    tokens = token_entries(files, config)
    length = tokens["tokens"]
    limit = len(length) if isinstance(length, list) and tokens["model"] == "llama" else None
    entries = tokens | special_entries(files, config, limit)
    return {f"tokenizer.ggml.{name}": value for name, value in entries.items()} | templates(files)


@dataclass(frozen=True)
class Row:
    """A key of the header.

    Args:
        key: The key.
        origin: What it follows from, for people.
        derive: Returns its value; None if the header must not have it.
    """

    key: str
    origin: str
    derive: Callable[[Model], Value | May | Unknown | None]


def derive(model: Model) -> dict[str, Value | May | Unknown]:
    """Return the entries of a model's header, without those that it must not have.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: If its configuration is damaged.
    """
    own = model.architecture
    entries = {
        row.key.replace(OWN, f"{own}.", 1): value for row in ROWS if (value := row.derive(model)) is not None
    }
    return entries | {
        key: value for key, value in (model.tokenizer or {}).items() if key.startswith(f"{TEMPLATE}.")
    }


def origin_of(key: str) -> str | None:
    """Return what a key follows from; None if it is not in the table."""
    if key.startswith(f"{TEMPLATE}."):
        return _ORIGINS[TEMPLATE]
    own = OWN + key.partition(".")[2]
    return _ORIGINS.get(key) or _ORIGINS.get(own)


# -- config.json ---------------------------------------------------------------------------------------------------------


def _number(names: tuple[str, ...], kind: type, model: Model) -> Value | None:
    """Return the first of some settings, or its default, as an integer or a float."""
    for name in names:
        if (given := model.settings.get(name)) is not None:
            return cast("Value", kind(given))
    of_type = (default_of(model.settings.get("model_type"), name) for name in names)
    default = next((found for found in of_type if found is not None), None)
    return None if default is None else cast("Value", kind(default))


def _head(model: Model) -> int | None:
    width = value_of(model.settings, "head_dim")
    return None if width is None else int(width)


def _split(model: Model) -> int:
    return int(model.settings["hidden_size"]) // int(model.settings["num_attention_heads"])


def _length_of_head(model: Model) -> Value | May:
    form = model.form
    if form and (form.partial or form.split_heads):  # the converter does not look at head_dim
        return May(_split(model))
    return _head(model) or May(_split(model))


def _key_value_heads(model: Model) -> Value | May:
    given = value_of(model.settings, "num_key_value_heads")
    return int(given) if given else May(int(model.settings["num_attention_heads"]))


def _base(model: Model) -> Value | None:
    form = model.form
    if form and "rope.freq_base" in form.unwritten:
        return None
    if (section := (model.settings.get("rope_parameters") or {}).get(FULL)) is not None:
        return float(section["rope_theta"])
    given = model.settings.get("rope_theta") or (model.settings.get("rope_parameters") or {}).get(
        "rope_theta"
    )
    if given:
        return rope_of(dict(model.settings))[0]
    return _number(("rope_theta",), float, model)


def _scaling(name: str, kind: type, model: Model) -> Value | None:
    """Return a setting of rotary embeddings that are scaled in a way that the converter writes."""
    if model.architecture == "phi3":  # of any way, and nothing else
        return original_length(model.settings) if name == _ORIGINAL_LENGTH else None
    if model.architecture == "command-r":
        return "none" if name == "type" else None
    of_all = (model.settings.get("rope_parameters") or {}).get(FULL)
    _, settings = rope_of({**model.settings, "rope_parameters": of_all} if of_all else dict(model.settings))
    settings = settings or {}
    way = settings.get("rope_type", settings.get("type"))
    if way not in {"linear", "yarn"}:
        return None
    if name == "type":
        return str(way)
    given = settings.get(name)
    return None if given is None or (way == "linear" and name != "factor") else cast("Value", kind(given))


def _of_long_contexts(model: Model) -> Value | None:
    return attention_factor(model.settings) if scaled_by(model.settings, "longrope") else None


def _local_base(model: Model) -> Value | None:
    if model.architecture != "gemma3":
        return None
    section = (model.settings.get("rope_parameters") or {}).get(SLIDING) or {}
    given = section.get("rope_theta")
    return _number(("rope_local_base_freq",), float, model) if given is None else float(given)


def _of_local(name: str, kind: type, model: Model) -> Value | None:
    """Return a setting that is written for models some of whose layers have a sliding window."""
    if model.architecture == "phi3" and name == "sliding_window":
        return int(model.settings.get(name) or 0)
    form = model.form
    return _number((name,), kind, model) if form and form.local_layers else None


def _of_rotary(model: Model) -> Value | May | None:
    form = model.form
    if form and form.partial:
        rope = model.settings.get("rope_parameters") or {}
        share = rope.get("partial_rotary_factor", model.settings.get("partial_rotary_factor", 1.0))
        return int(float(share) * _split(model))
    return _length_of_head(model) if model.architecture in _WITH_WIDTHS else None


def _rows(model: Model) -> Value | None:
    return _number(("vocab_size",), int, model) if model.architecture in _WITH_WIDTHS else None


def _parallel(model: Model) -> Value | None:
    return (
        bool(model.settings.get("use_parallel_residual", True)) if model.architecture == "stablelm" else None
    )


def _causal(model: Model) -> Value | None:
    return False if model.settings.get("is_causal") is False else None


def _gating(model: Model) -> Value | Unknown | None:
    names = ("scoring_func", "score_function", "score_func", "moe_router_activation", "expert_selection_fn")
    given = next((value for name in names if (value := model.settings.get(name)) is not None), None)
    return None if given is None else _GATING.get(given, Unknown())


_FLOATS = {"rms_norm_eps", "rope_theta"}
_OTHERWISE = {"attention.head_count_kv": _key_value_heads, "rope.freq_base": _base}
_MORE = {
    "expert_count": EXPERT_COUNTS,
    "expert_group_count": ("n_group",),
    "expert_group_used_count": ("topk_group",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size", "shared_intermediate_size"),
}
_MULTIPLIERS = {  # of a Granite, and of a Command-R
    "attention.scale": ("attention_multiplier",),
    "embedding_scale": ("embedding_multiplier",),
    "logit_scale": ("logits_scaling", "logit_scale"),
    "residual_scale": ("residual_multiplier",),
}
_SCALING = {
    "type": ("type", str),
    "factor": ("factor", float),
    "original_context_length": (_ORIGINAL_LENGTH, int),
    "yarn_beta_fast": ("beta_fast", float),
    "yarn_beta_slow": ("beta_slow", float),
}
_CONFIG_ROWS = (
    *(
        (key, _OTHERWISE.get(key) or partial(_number, (name,), float if name in _FLOATS else int))
        for key, name in HYPERPARAMETERS.items()
    ),
    *((key, partial(_number, names, int)) for key, names in _MORE.items()),
    ("vocab_size", _rows),
    ("attention.key_length", _length_of_head),
    ("attention.value_length", _length_of_head),
    ("attention.causal", _causal),
    ("use_parallel_residual", _parallel),
    (
        "attention.layer_norm_epsilon",
        partial(_number, ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"), float),
    ),
    ("rope.dimension_count", _of_rotary),
    ("rope.freq_base_swa", _local_base),
    ("attention.sliding_window", partial(_of_local, "sliding_window", int)),
    ("attn_logit_softcapping", partial(_of_local, "attn_logit_softcapping", float)),
    ("final_logit_softcapping", partial(_of_local, "final_logit_softcapping", float)),
    *((f"rope.scaling.{key}", partial(_scaling, *about)) for key, about in _SCALING.items()),
    ("rope.scaling.attn_factor", _of_long_contexts),
    ("expert_gating_func", _gating),
    *((key, partial(_number, names, float)) for key, names in _MULTIPLIERS.items()),
)


# -- the recipe, the tensors, the tokenizer ------------------------------------------------------------------------------


def _general(key: str, model: Model) -> Value | Unknown | None:
    return Unknown() if model.general is None else model.general.get(key)


def _license(model: Model) -> Value | May | Unknown:
    """Return the license, which the pinned version of the converter leaves out."""
    given = _general("general.license", model)
    return May(given) if isinstance(given, str) else Unknown()


def _file_type(model: Model) -> Value | Unknown:
    return Unknown() if model.file_type is None else model.file_type


def _imatrix(key: str, model: Model) -> Value | Unknown | None:
    return Unknown() if model.imatrix is None else model.imatrix.get(key)


def size_label(tensors: Iterable[Listed]) -> str:
    """Return the size in words, such as ``4x135M``: of a mixture, that of all that one expert computes with."""
    shared = expert = 0
    counts = []
    for tensor in tensors:
        if "_exps." in tensor.name:
            counts.append(tensor.shape[0])
            expert += math.prod(tensor.shape[1:])
        else:
            shared += math.prod(tensor.shape)
    label = _rounded(shared + expert)
    return f"{sum(counts) // len(counts)}x{label}" if counts else label


def _rounded(number: int) -> str:
    scale, unit = next(
        ((scale, unit) for scale, unit in ((12, "T"), (9, "B"), (6, "M")) if number > 10**scale), (3, "K")
    )
    scaled = number * 10.0**-scale
    whole = str(round(scaled)).lstrip("0")
    return f"{scaled:.{max(2 - len(whole), 0)}f}{unit}"


def _of_tokenizer(key: str, model: Model) -> Value | Unknown | None:
    if model.tokenizer is None:
        return Unknown()
    value = model.tokenizer.get(key)
    if value is None and key == PRE:
        return Unknown()
    if key == "tokenizer.chat_templates":  # the converter writes the names in any order
        return Unknown() if any(name.startswith(f"{TEMPLATE}.") for name in model.tokenizer) else None
    return value


_TOKENIZER_KEYS = (
    *(f"tokenizer.ggml.{name}" for name in ("model", "tokens", "scores", "token_type", "merges")),
    *(f"tokenizer.ggml.{name}" for name in (*IDS.values(), *ADDS.values(), "add_space_prefix")),
    *(f"tokenizer.ggml.normalizer.{name}" for name in ("lowercase", "strip_accents")),
    TEMPLATE,
)
ROWS: tuple[Row, ...] = (
    Row("general.architecture", FROM_CONFIG, lambda model: model.architecture),
    *(Row(f"{OWN}{key}", FROM_CONFIG, derive) for key, derive in _CONFIG_ROWS),
    Row("general.type", FROM_RECIPE, lambda _: "model"),
    *(
        Row(key, FROM_RECIPE, partial(_general, key))
        for key in ("general.name", "general.license.name", "general.license.link")
    ),
    Row("general.license", FROM_RECIPE, _license),
    Row("general.file_type", FROM_RECIPE, _file_type),
    Row("general.quantization_version", FROM_RECIPE, lambda _: QUANTIZATION_VERSION),
    *(
        Row(key, FROM_RECIPE, partial(_imatrix, key))
        for key in (
            f"quantize.imatrix.{name}" for name in ("file", "dataset", "entries_count", "chunks_count")
        )
    ),
    Row(
        "general.size_label", FROM_TENSORS, lambda model: size_label(model.tensors) if model.tensors else None
    ),
    *(Row(key, FROM_TOKENIZER, partial(_of_tokenizer, key)) for key in _TOKENIZER_KEYS),
    *(Row(key, FROM_CONVERTER, partial(_of_tokenizer, key)) for key in (PRE, "tokenizer.chat_templates")),
)
_ORIGINS = {row.key: row.origin for row in ROWS}
