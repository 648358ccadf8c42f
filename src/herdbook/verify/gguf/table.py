"""Each key of a GGUF's header, and what it follows from: the table by which headers are derived, compared and documented.

It states what llama.cpp's converter writes for the architectures that are converted (``architectures.gguf_forms``), from the
files that it is given. A key that is not in it is never written for them. Keys that begin with ``*`` begin with the name of the
architecture in a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from herdbook.architectures.conversion import TOKENIZERS
from herdbook.verify.gguf.hyperparameters import ROWS as HYPERPARAMETER_ROWS
from herdbook.verify.gguf.model import May, Unknown
from herdbook.verify.gguf.special import ADDS, IDS, special_entries, templates
from herdbook.verify.gguf.tokens import TokenizerFiles, token_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from herdbook.verify.gguf.model import Model
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
QUANTIZATION_VERSION = 2  # ggml's, of the encodings


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
    *(Row(f"{OWN}{key}", FROM_CONFIG, derive) for key, derive in HYPERPARAMETER_ROWS),
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
