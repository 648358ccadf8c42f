"""The header of a model's GGUF files, by llama.cpp's own converter in a process of its own: hyperparameters and vocabulary."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf.constants import GGMLQuantizationType, GGUFValueType
from gguf.utility import size_label

from herdbook.architectures.conversion import TOKENIZERS, attention_factor, scaled_by
from herdbook.architectures.dense import rope_of
from herdbook.architectures.gguf_equivalent import as_converted
from herdbook.architectures.gguf_forms import form_of
from herdbook.architectures.gguf_settings import WITH_EXPERTS
from herdbook.architectures.gguf_tensors import ROPE_FREQUENCIES, derived, gguf_architecture, rope_frequencies
from herdbook.architectures.layers import FULL
from herdbook.errors import StepError
from herdbook.files import dump_json, scratch
from herdbook.layout import CONFIG
from herdbook.sources.select import TOKENIZER_FILES
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.source import shape_in, tensors_of
from herdbook.tools.converter import CONVERTER
from herdbook.weights.gguf_file import TensorInfo, header, padded, read_gguf
from herdbook.weights.gguf_header import encode_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from herdbook.steps.quantize.model_folder import ModelFolder
    from herdbook.weights.gguf_file import GgufFile

# The folder's name could otherwise end up in the file.
STAGING_NAME = "model"
ARCHITECTURE = "general.architecture"


def convert_folder(
    model: Path, output: Path, *, metadata: Mapping[str, Any], log: Callable[[str], None] | None = None
) -> None:
    """Write the header of a model's GGUF files: a GGUF with no tensor of the model.

    The bytes depend only on configuration, tokenizer, the shapes of the tensors and ``metadata``: not on the paths of files,
    the names of shards, or a model card.

    Args:
        model: A folder with named shards and their index (or one ``model.safetensors``), ``config.json`` and the
            tokenizer's files. Files may be symbolic links. Of the shards, only the headers are read.
        output: The path of the GGUF, which is written atomically.
        metadata: Entries of the header, by GGUF key: ``general.name`` is required; ``general.license``,
            ``general.base_models`` (a list of ``name``, ``version``, ``repo_url``, ...) and others are optional.
        log: Called with each line of the converter's output.

    Raises:
        CheckpointError: If files of the model are missing or damaged.
        StepError: If the architecture is not supported, the converter is not installed, or it failed.
    """
    if not metadata.get("general.name"):
        raise StepError(
            "convert: the metadata lack general.name, without which the converter would use a folder's name."
        )
    folder = read_folder(model)
    label = {
        "general.size_label": _size_label(folder)
    }  # the converter computes it only if it reads the tensors
    if not any((model / name).exists() for name in TOKENIZERS):
        raise StepError(f"{model}: has no tokenizer ({' or '.join(TOKENIZERS)}), which a GGUF must contain.")
    # In the output's folder, so that the finished file is renamed, not copied; by its absolute path, since the converter
    # runs in another working directory.
    with scratch(output.absolute()) as place:
        staging = place / STAGING_NAME
        stage(folder, staging)
        metadata_path = place / "metadata.json"
        metadata_path.write_text(dump_json({**metadata, **label}), encoding="utf-8")
        converted = place / "header.gguf"
        arguments = [str(staging), "--vocab-only", "--metadata", str(metadata_path)]
        CONVERTER.run([*arguments, "--outfile", str(converted)], place, log)
        made = read_gguf(converted)
        if missing := missing_tokens(made, folder.config):
            raise StepError(f"{model}: {missing}.")
        if wrong := list(_misread(made, folder.config)):
            raise StepError(f"{model}: llama.cpp's converter read it as another model: {'; '.join(wrong)}.")
        if names := [name for name, part in tensors_of(folder).items() if not part.sources]:
            _add_derived(made, folder.config, names)
        with converted.open("rb") as file:
            os.fsync(file.fileno())
        converted.replace(output)


def missing_tokens(file: GgufFile, config: Mapping[str, Any]) -> str | None:
    """Return why llama.cpp would not load a converted file because of its tokens; None if it would.

    The converter fills up a vocabulary that is smaller than the embeddings, but not each kind.
    """
    tokens, rows = file.count("tokenizer.ggml.tokens"), config["vocab_size"]
    if tokens in {0, rows}:  # the converter always writes tokens
        return None
    return f"the tokenizer has {tokens} tokens for {rows} rows of embeddings, and llama.cpp does not load such a GGUF"


def _misread(file: GgufFile, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the hyperparameters that the header does not take from ``config.json``; those that it lacks are left out."""
    form, config = form_of(config), as_converted(config)
    rope = config.get("rope_parameters") or {}
    rope = rope.get(FULL, rope)
    for name, theirs in WITH_EXPERTS.items():
        if form and name in form.unwritten:
            continue
        key = f"{form.architecture if form else ''}.{name}"
        expected = config.get(theirs, rope.get(theirs))
        if expected is None:
            continue
        found = file.value(key)
        if found is None or np.float32(found) != np.float32(expected):  # numbers in the file are float32
            yield f"{key} is {found}, but {theirs} is {expected}"


def _add_derived(file: GgufFile, config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Add what follows from the configuration alone and the converter writes with the weights: tensors, and LongRoPE's factor."""
    tensors, data = [], b""
    for name in names:
        values = (
            _frequencies(config)
            if name == ROPE_FREQUENCIES
            else np.asarray(derived(config, name), np.float32)
        )
        tensors.append(TensorInfo(name, values.shape, GGMLQuantizationType.F32))
        data += values.tobytes()
        data += bytes(padded(len(data)) - len(data))
    metadata = file.metadata
    if scaled_by(config, "longrope"):
        # where it is if the converter writes the weights, too: before everything but the architecture
        first = {ARCHITECTURE: metadata[ARCHITECTURE]}
        factor = encode_number(GGUFValueType.FLOAT32, attention_factor(config))
        metadata = {**first, f"{gguf_architecture(config)}.rope.scaling.attn_factor": factor, **metadata}
    file.path.write_bytes(header(metadata, tensors) + data)


def _frequencies(config: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return ``rope_frequencies``, rounded as the converter's operations in float32 round them."""
    import torch

    base, scaling = rope_of(dict(config))
    assert scaling is not None  # noqa: S101 - only such models have the tensor
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    context, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    width = 2 * len(rope_frequencies(config))
    frequencies = 1.0 / (base ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    lengths = 2 * math.pi / frequencies
    share = (context / lengths - low) / (high - low)
    between = 1 / ((1 - share) / factor + share)
    factors = torch.where(lengths > context / low, torch.full_like(lengths, factor), between)
    result: NDArray[np.float32] = torch.where(lengths < context / high, 1.0, factors).numpy()
    return result


def _size_label(folder: ModelFolder) -> str:
    """Return the size in words that llama.cpp's converter writes, such as ``4x135M``."""
    shared = expert = 0
    counts = []
    for part in tensors_of(folder).values():
        shape = shape_in(folder, part)
        elements = math.prod(shape)
        if "_exps." in part.name:
            counts.append(shape[0])
            expert += elements // shape[0]
        else:
            shared += elements
    return str(size_label(shared, shared, expert, sum(counts) // len(counts) if counts else 0))


def stage(folder: ModelFolder, staging: Path) -> None:
    """Prepare the converter's input: the configuration and the tokenizer, and nothing whose name or path could matter."""
    staging.mkdir()
    # transformers writes the path that a model was loaded from into its configuration, and the converter would use it
    config = {key: value for key, value in as_converted(folder.config).items() if key != "_name_or_path"}
    (staging / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    # Nothing else: the converter would copy the front matter of a README, but the card is written after the GGUF, since it
    # contains its digest; and it would write the sampling settings of generation_config.json into the header.
    for name in TOKENIZER_FILES:
        if (folder.path / name).exists():
            (staging / name).symlink_to((folder.path / name).resolve())
