"""Sources in GGUF: dequantized into an ordinary Hugging Face folder by transformers.

transformers reads llama.cpp's format itself (``gguf_file=``): weights, configuration, tokenizer and chat template.
Its reader is for dense models; a Mixture of Experts would silently get random experts, so only the Llama family is accepted.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.architectures.config import wrong_type
from herdbook.errors import HerdbookError, SourceError
from herdbook.files import dump_json
from herdbook.layout import CONFIG, GENERATION_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}


@contextmanager
def _read(container: Path) -> Iterator[None]:
    """Let transformers read a GGUF file, which may be damaged in any way.

    Raises:
        SourceError: If it cannot; its readers raise whatever a value that is not expected leads to.
    """
    try:
        yield
    except HerdbookError:
        raise
    except Exception as error:
        raise SourceError(
            f"{container.name}: transformers cannot read it as a model in GGUF: {type(error).__name__}: {str(error)[:200]}"
        ) from error


def read_config(container: Path, dtype: str) -> dict[str, Any]:
    """Return the configuration in a GGUF file, as the content of ``config.json``.

    Rotary base and dtype are given under both of their names, since transformers 4 and 5 each read only their own.

    Raises:
        SourceError: If the model is not of a supported architecture.
    """
    from transformers import AutoConfig

    with _read(container):
        config = AutoConfig.from_pretrained(str(container.parent), gguf_file=container.name).to_dict()
    if problem := wrong_type(config):
        raise SourceError(f"{container.name}: its metadata: {problem}")
    if config["model_type"] not in ARCHITECTURES:
        raise SourceError(
            f"{container.name}: reading the architecture {config['model_type']!r} from GGUF is not supported "
            f"(supported: {', '.join(ARCHITECTURES)}). Use the model's safetensors instead."
        )
    for irrelevant in ("_name_or_path", "_model_name_or_path", "transformers_version", "quantization_config"):
        config.pop(irrelevant, None)
    rope = config.get("rope_parameters") or {}
    return {
        **{key: value for key, value in config.items() if value is not None},
        "architectures": [ARCHITECTURES[config["model_type"]]],
        "dtype": dtype,
        "torch_dtype": dtype,
        **({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}),
    }


def list_tensors(container: Path, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors by name, from its configuration alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = {key: value for key, value in config.items() if key != "model_type"}
    with _read(container), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **plain))
    return {name: tuple(tensor.shape) for name, tensor in _untied(model)}


def read_weights(container: Path, dtype: str) -> dict[str, torch.Tensor]:
    """Dequantize a GGUF file.

    Returns:
        Tensors of ``dtype`` by name; a head that is tied to the embeddings is left out.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    with _read(container):
        model = AutoModelForCausalLM.from_pretrained(
            str(container.parent),
            gguf_file=container.name,
            dtype=getattr(torch, dtype),
            quantization_config=GgufConfig(dequantize=True),
        )
    return dict(_untied(model))


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
    from transformers import AutoTokenizer, GenerationConfig

    files = {}
    tokens = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config}
    generation = GenerationConfig(**tokens).to_diff_dict()
    generation.pop("transformers_version", None)
    files[GENERATION_CONFIG] = dump_json(generation).encode()
    with tempfile.TemporaryDirectory() as folder:
        AutoTokenizer.from_pretrained(str(container.parent), gguf_file=container.name).save_pretrained(folder)
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


def _untied(model: Any) -> list[tuple[str, torch.Tensor]]:
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()  # noqa: SLF001
    return [(name, tensor) for name, tensor in model.state_dict().items() if name not in tied]
