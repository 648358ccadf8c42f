"""A Hugging Face folder to a GGUF of full width, by llama.cpp's own converter in a process of its own."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from herdbook.architectures.conversion import TOKENIZERS
from herdbook.errors import StepError
from herdbook.files import dump_json, scratch
from herdbook.layout import CONFIG, WEIGHTS_INDEX
from herdbook.sources.select import TOKENIZER_FILES
from herdbook.steps.quantize.layout import layout
from herdbook.steps.quantize.model_folder import DTYPES, read_folder
from herdbook.tools.converter import CONVERTER
from herdbook.weights.gguf_file import read_gguf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from herdbook.steps.quantize.model_folder import ModelFolder
    from herdbook.weights.gguf_file import GgufFile

# The folder's name could otherwise end up in the file.
STAGING_NAME = "model"


def convert_folder(
    model: Path, output: Path, *, metadata: Mapping[str, Any], log: Callable[[str], None] | None = None
) -> None:
    """Convert a model to a GGUF of full width, without loss.

    Matrices keep the dtype of the safetensors (BF16, F16 or F32; F32 if they are mixed), norms and routers become F32. The
    bytes depend only on weights, configuration, tokenizer and ``metadata``: not on the paths of files, the names of shards,
    or a model card.

    Args:
        model: A folder with named shards and their index (or one ``model.safetensors``), ``config.json`` and the
            tokenizer's files. Files may be symbolic links.
        output: The path of the GGUF, which is written atomically.
        metadata: Entries of the header, by GGUF key: ``general.name`` is required; ``general.license``,
            ``general.base_models`` (a list of ``name``, ``version``, ``repo_url``, ...) and others are optional.
        log: Called with each line of the converter's output.

    Raises:
        CheckpointError: If files of the model are missing or damaged.
        StepError: If the architecture or a dtype is not supported, the converter is not installed, or it failed.
    """
    if not metadata.get("general.name"):
        raise StepError(
            "convert: the metadata lack general.name, without which the converter would use a folder's name."
        )
    folder = read_folder(model)
    layout(
        folder.config, str(model)
    )  # refuses models whose tensors could not be derived from the safetensors
    if not any((model / name).exists() for name in TOKENIZERS):
        raise StepError(f"{model}: has no tokenizer ({' or '.join(TOKENIZERS)}), which a GGUF must contain.")
    # In the output's folder, so that the finished file is renamed, not copied; by its absolute path, since the converter
    # runs in another working directory.
    with scratch(output.absolute()) as place:
        staging = place / STAGING_NAME
        stage(folder, staging)
        metadata_path = place / "metadata.json"
        metadata_path.write_text(dump_json(dict(metadata)), encoding="utf-8")
        converted = place / "full.gguf"
        arguments = [
            str(staging),
            "--outtype",
            outtype(folder),
            "--metadata",
            str(metadata_path),
            "--outfile",
            str(converted),
        ]
        CONVERTER.run(arguments, place, log)
        if missing := missing_tokens(read_gguf(converted), folder.config):
            raise StepError(f"{model}: {missing}.")
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


def outtype(folder: ModelFolder) -> str:
    """Return the narrowest ``--outtype`` that represents all matrices of a model without loss: bf16, f16 or f32.

    Vectors and routers do not count: the converter always writes them as F32.
    """
    dtypes = set()
    for name, (shard, span) in folder.tensors.items():
        if span.dtype not in DTYPES:
            raise StepError(
                f"{shard}: tensor {name} has dtype {span.dtype}; only {', '.join(DTYPES)} are supported."
            )
        if len(span.shape) > 1 and not name.endswith(".block_sparse_moe.gate.weight"):
            dtypes.add(span.dtype)
    return dtypes.pop().lower() if len(dtypes) == 1 else "f32"


def stage(folder: ModelFolder, staging: Path) -> None:
    """Prepare the converter's input: links to the shards, and nothing whose name or path could affect the result.

    Shards are renamed: the converter finds only files whose names begin with ``model``, and reads them in order of name.
    """
    staging.mkdir()
    # Ordered by content, so that the order of tensors in the file does not depend on the names of the shards.
    firsts = {
        shard: min(name for name, (file, _) in folder.tensors.items() if file == shard)
        for shard in folder.shards
    }
    shards = sorted(folder.shards, key=lambda shard: firsts[shard])
    names = {
        shard: f"model-{number:05}-of-{len(shards):05}.safetensors" for number, shard in enumerate(shards, 1)
    }
    for shard, name in names.items():
        (staging / name).symlink_to(shard.resolve())
    weight_map = {tensor: names[shard] for tensor, (shard, _) in sorted(folder.tensors.items())}
    (staging / WEIGHTS_INDEX).write_text(
        dump_json({"metadata": {}, "weight_map": weight_map}), encoding="utf-8"
    )
    # transformers writes the path that a model was loaded from into its configuration, and the converter would use it
    config = {key: value for key, value in folder.config.items() if key != "_name_or_path"}
    (staging / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    # Nothing else: the converter would copy the front matter of a README, but the card is written after the GGUF, since it
    # contains its digest; and it would write the sampling settings of generation_config.json into the header.
    for name in TOKENIZER_FILES:
        if (folder.path / name).exists():
            (staging / name).symlink_to((folder.path / name).resolve())
