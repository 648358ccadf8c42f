"""Sources in GGUF: dequantized into an ordinary Hugging Face folder.

The header is read here: transformers' reader makes an object of each of a vocabulary's tokens, several times over, and does not
account for tensors. What follows from the header is left to transformers: the defaults of the configuration, and the tokenizer.
Only the Llama family's dense models are accepted.
"""

from __future__ import annotations

import json
import mmap
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.architectures.config import wrong_types
from herdbook.architectures.gguf_settings import HYPERPARAMETERS
from herdbook.errors import CheckpointError, HerdbookError, SourceError
from herdbook.files import dump_json
from herdbook.layout import CONFIG, GENERATION_CONFIG
from herdbook.weights.gguf_header import count, parse_header, scalar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.weights.gguf_restored import RestoredTensors

ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}
# By their keys in the header, the settings of config.json, as transformers reads them. That of the rotary embeddings' width is the
# width of a head only in this family.
SETTINGS = {**HYPERPARAMETERS, "rope.dimension_count": "head_dim", "vocab_size": "vocab_size"}
TOKENS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "unknown_token_id": "unk_token_id",
    "padding_token_id": "pad_token_id",
}


@contextmanager
def _read(container: Path) -> Iterator[None]:
    """Let transformers make something of a GGUF file, which may be damaged in any way.

    Raises:
        SourceError: If it cannot; it raises whatever a value that is not expected leads to.
    """
    try:
        yield
    except HerdbookError:
        raise
    except Exception as error:
        raise SourceError(
            f"{container.name}: transformers cannot read it as a model in GGUF: {type(error).__name__}: {str(error)[:200]}"
        ) from error


def read_facts(container: Path) -> dict[str, Any]:
    """Return the settings of a model that its GGUF file states, as ``config.json`` names them.

    Raises:
        SourceError: If the file is damaged, or the model is not of a supported architecture.
    """
    try:
        with container.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = parse_header(data, container)
        metadata = header.metadata
        architecture = scalar(metadata, "general.architecture")
        # llama.cpp has no architecture of its own for Mistral; transformers goes by the name
        is_mistral = architecture == "llama" and scalar(metadata, "general.name") == "mistral"
        kind = "mistral" if is_mistral else architecture
        if kind not in ARCHITECTURES:
            raise SourceError(
                f"{container.name}: reading the architecture {kind!r} from GGUF is not supported "
                f"(supported: {', '.join(ARCHITECTURES)}). Use the model's safetensors instead."
            )
        named = {f"{architecture}.{key}": name for key, name in SETTINGS.items()}
        named |= {f"tokenizer.ggml.{key}": name for key, name in TOKENS.items()}
        facts = {name: scalar(metadata, key) for key, name in named.items() if key in metadata}
    except (CheckpointError, ValueError) as error:  # ValueError: mmap of an empty file
        raise SourceError(f"{container.name}: cannot be read as a model in GGUF: {error}") from error
    if "tokenizer.ggml.tokens" in metadata:
        facts.setdefault("vocab_size", count(metadata, "tokenizer.ggml.tokens"))
    tied = all(tensor.name != "output.weight" for tensor in header.tensors)
    return {
        "model_type": kind,
        "architectures": [ARCHITECTURES[kind]],
        **facts,
        "tie_word_embeddings": tied,
    }


def read_config(container: Path, dtype: str) -> dict[str, Any]:
    """Return the configuration in a GGUF file, with transformers' defaults, as the content of ``config.json``.

    Rotary base and dtype are given under both of their names, since transformers 4 and 5 each read only their own.

    Raises:
        SourceError: If the model is not of a supported architecture, or a setting has no valid value.
    """
    from transformers import AutoConfig

    facts = read_facts(container)
    with _read(container):
        config = AutoConfig.for_model(**facts).to_dict()
    if problems := wrong_types(config):
        raise SourceError("\n".join(f"{container.name}: its metadata: {problem}" for problem in problems))
    for irrelevant in ("_name_or_path", "transformers_version"):
        config.pop(irrelevant, None)
    rope = config.get("rope_parameters") or {}
    return {
        **{key: value for key, value in config.items() if value is not None},
        "dtype": dtype,
        "torch_dtype": dtype,
        **({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}),
    }


def list_tensors(container: Path, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors by name, from its configuration, after comparing them with the file's.

    Raises:
        CheckpointError: If the file lacks a tensor or has an extra one.
        SourceError: If the model has no such tensor, or one of another shape.
        StepError: If a setting is not supported.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = {key: value for key, value in config.items() if key != "model_type"}
    with _read(container), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **plain))
        tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()  # noqa: SLF001
    listed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
    with _read(container):
        held = read_weights(container)
    for name in sorted({*listed, *held.spans}):
        if listed.get(name) != held.shape(name):
            raise SourceError(
                f"{container.name}: by its settings, the tensor {name} has the shape {listed.get(name)}, and in the file "
                f"{held.shape(name)}"
            )
    return listed


def read_weights(container: Path) -> RestoredTensors:
    """Return the tensors of a GGUF file, dequantized to float32 when they are requested.

    Raises:
        CheckpointError: If the file is damaged, lacks a tensor or has an extra one.
        SourceError: If the model is not of a supported architecture.
        StepError: If a setting is not supported.
    """
    from herdbook.weights.gguf_restored import (
        RestoredTensors,
    )  # needs packages that other sources do not need

    return RestoredTensors(container, read_facts(container), container.name)


def make_files(container: Path, dtype: str) -> dict[str, bytes]:
    """Return the files beside the weights, by name: configuration, generation defaults, tokenizer, chat template.

    Raises:
        SourceError: If they cannot be made from the file.
    """
    config = read_config(container, dtype)
    files = {CONFIG: dump_json(config).encode()}
    with _read(container):
        return files | _side_files(container, config)


def _side_files(container: Path, config: dict[str, Any]) -> dict[str, bytes]:
    from transformers import GenerationConfig, TokenizersBackend

    files = {}
    tokens = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config}
    generation = GenerationConfig(**tokens).to_diff_dict()
    generation.pop("transformers_version", None)
    files[GENERATION_CONFIG] = dump_json(generation).encode()
    with tempfile.TemporaryDirectory() as folder:
        # the class that AutoTokenizer takes, after it has read the configuration, too
        tokenizer = TokenizersBackend.from_pretrained(str(container.parent), gguf_file=container.name)
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).iterdir()):
            files[path.name] = path.read_bytes()
    tokenizer_config = json.loads(files["tokenizer_config.json"])
    for local in ("backend", "is_local", "local_files_only", "name_or_path"):
        tokenizer_config.pop(local, None)
    tokenizer_config["tokenizer_class"] = "PreTrainedTokenizerFast"  # a class of both transformers 4 and 5
    # transformers 4 would by default add token_type_ids, which the model's generate() refuses
    tokenizer_config["model_input_names"] = ["input_ids", "attention_mask"]
    files["tokenizer_config.json"] = dump_json(tokenizer_config).encode()
    return files
