"""Whether index, headers and configuration of a source describe one model in a form that is supported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import jsonio
from herdbook.architectures.config import wrong_type
from herdbook.architectures.form import QUANTIZED
from herdbook.errors import SourceError
from herdbook.layout import CONFIG, WEIGHTS_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from herdbook.lock.model import LockedTensor

COUNTS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")

UNQUANTIZED = "Name the repository with the weights before quantization, in bfloat16, float16 or float32."
# Ends of the names of what the common methods store in place of a matrix, or beside it.
QUANTIZED_NAMES = (
    *(".qweight", ".qzeros", ".scales", ".g_idx", ".weight_packed", ".weight_scale", ".weight_scale_inv"),
    *(".absmax", ".quant_map", ".SCB", ".weight_format", ".input_scale", ".weight_zero_point"),
)
# 8-bit floats, and integers that are packed matrices.
QUANTIZED_DTYPES = ("F8", "I8", "U8", "I16", "I32")


def check_index(index: bytes | None, tensors: Iterable[LockedTensor], what: str) -> None:
    """Compare an index with the headers of the files that it names.

    Args:
        index: Its content; None if the source has none.
        tensors: The tensors of all files, from the headers.
        what: The source, for error messages.

    Raises:
        SourceError: If a tensor is in two files, in another one than the index names, or in none.
    """
    files: dict[str, str] = {}
    for tensor in tensors:
        if tensor.name in files:
            raise SourceError(
                f"{what}: tensor {tensor.name} is in both {files[tensor.name]} and {tensor.file}; which one counts is not known"
            )
        files[tensor.name] = tensor.file
    if index is None:
        return
    weight_map = {str(name): str(file) for name, file in jsonio.load(index)["weight_map"].items()}
    for name, file in weight_map.items():
        if files.get(name) != file:
            found = f"is in {files[name]}" if name in files else "is in none of the weights files"
            raise SourceError(f"{what}: {WEIGHTS_INDEX} names {file} for tensor {name}, which {found}")
    if unlisted := sorted(files.keys() - weight_map.keys()):
        raise SourceError(
            f"{what}: tensor {unlisted[0]} of {files[unlisted[0]]} is not in {WEIGHTS_INDEX}, so transformers would ignore it"
        )


def check_dtypes(tensors: Iterable[LockedTensor], what: str) -> None:
    """Check that no tensor is quantized, as its name or dtype shows, whatever the configuration states.

    Raises:
        SourceError: If one is.
    """
    for tensor in tensors:
        is_mask = len(tensor.shape) == 4  # of the attention, as old versions of transformers stored them
        integers = tensor.dtype.startswith(QUANTIZED_DTYPES) and not is_mask
        if integers or tensor.name.endswith(QUANTIZED_NAMES):
            raise SourceError(
                f"{what}: its weights are quantized (tensor {tensor.name} of dtype {tensor.dtype}). {UNQUANTIZED}"
            )


def check_config(config: Mapping[str, Any], what: str) -> None:
    """Check that a configuration is that of a language model with full-width weights.

    Raises:
        SourceError: If the weights are quantized, or the configuration is of a form that is not supported.
    """
    for key in QUANTIZED:
        if config.get(key) is not None:
            method = config[key].get("quant_method") if isinstance(config[key], dict) else None
            raise SourceError(
                f"{what}: its weights are quantized ({CONFIG}: {key}{f', {method}' if method else ''}). "
                f"{UNQUANTIZED}"
            )
    if "text_config" in config:
        raise SourceError(
            f"{what}: {CONFIG} has a text_config: models that also read images or sound are not supported. Save its language "
            "model alone, and name that folder."
        )
    if problem := wrong_type(config):
        raise SourceError(f"{what}: {CONFIG}: {problem}")
    if lacking := [key for key in COUNTS if type(config.get(key)) is not int]:
        raise SourceError(
            f"{what}: {CONFIG} of type {config.get('model_type')!r} has no number {lacking[0]}; this form of configuration is "
            "not supported"
        )
