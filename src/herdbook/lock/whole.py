"""Whether index, headers and configuration of a source describe one model in a form that is supported."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.architectures.config import wrong_types
from herdbook.architectures.form import EMBEDDINGS, HEAD, PREFIX, QUANTIZED, is_known
from herdbook.architectures.layers import LAYER_COUNTS, layers_of
from herdbook.architectures.meaning import is_tied
from herdbook.architectures.modules import WORDS, reads_images, sections
from herdbook.errors import SourceError
from herdbook.layout import CONFIG, WEIGHTS_INDEX
from herdbook.lock import computed
from herdbook.sources import remote_code
from herdbook.sources.index import read_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from herdbook.lock.weights import LockedTensor
    from herdbook.weights.checkpoint import Span

ENDS = 1 << 20  # bytes of a matrix that are compared at either end
COUNTS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")

UNQUANTIZED = "Name the repository with the weights before quantization, in bfloat16, float16 or float32."
# Ends of the names of what the common methods store in place of a matrix, or beside it.
QUANTIZED_NAMES = (
    *(".qweight", ".qzeros", ".scales", ".g_idx", ".weight_packed", ".weight_scale", ".weight_scale_inv"),
    *(".absmax", ".quant_map", ".SCB", ".weight_format", ".input_scale", ".weight_zero_point"),
)
# 8-bit floats, and integers that are packed matrices.
QUANTIZED_DTYPES = ("F8", "I8", "U8", "I16", "I32")


def read_config(content: bytes, what: str, file: str = CONFIG) -> dict[str, Any]:
    """Return a configuration from the content of its file.

    Args:
        content: The content.
        what: The source, for error messages.
        file: What to call the file in error messages.

    Raises:
        SourceError: If it is not a JSON object, or names code to run.
    """
    try:
        config = jsonio.load_object(content, limits.DOCUMENT)
    except limits.OverLimitError as error:
        raise SourceError(f"{what}: refused: its {file} {error}") from error
    except jsonio.JsonError as error:
        raise SourceError(f"{what}: its {file}: {error}") from error
    if setting := remote_code.named_in(config):
        raise SourceError(
            f"{what}: refused: its {file} requires running its own code ({setting}), which a release must not lead to. Use a "
            "revision or a copy without it, if transformers loads the model without that code"
        )
    return config


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
    weight_map = read_index(index)
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


def check_tied(
    config: Mapping[str, Any],
    held: Mapping[str, Mapping[str, Span]],
    read: Callable[[str, Span], bytes],
    what: str,
) -> None:
    """Check that a head beside tied embeddings is equal to them, by their first and last rows.

    transformers 4 uses the embeddings in any case, transformers 5 the head if it is another one.

    Args:
        config: The configuration.
        held: The tensors of each weights file.
        read: Returns some bytes of a file.
        what: The source, for error messages.

    Raises:
        SourceError: If it is another one.
    """
    places = {
        end: (file, span)
        for end in (EMBEDDINGS, HEAD)
        for file, spans in held.items()
        for name, span in spans.items()
        if name == end or (reads_images(config) and name.endswith(f".{end.removeprefix(PREFIX)}"))
    }
    if not is_tied(config) or len(places) < len((EMBEDDINGS, HEAD)):
        return

    def ends(file: str, span: Span) -> list[bytes]:
        first = replace(span, end=min(span.end, span.start + ENDS))
        last = replace(span, start=max(span.start, span.end - ENDS))
        return [read(file, end) for end in (first, last)]

    if ends(*places[EMBEDDINGS]) != ends(*places[HEAD]):
        raise SourceError(
            f"{what}: {CONFIG} has tie_word_embeddings, and {HEAD} is not equal to {EMBEDDINGS}: transformers 4 uses the embeddings as "
            "output head, transformers 5 the other matrix. Set tie_word_embeddings to false, or remove the matrix"
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
    if reads_images(config):
        _check_modules(config, what)
        return
    if "text_config" in config:
        raise SourceError(
            f"{what}: {CONFIG} has a text_config and no vision_config: models that also read sound are not supported. Save its "
            "language model alone, and name that folder."
        )
    if problems := wrong_types(config):
        raise SourceError("\n".join(f"{what}: {CONFIG}: {problem}" for problem in problems))
    # other types have other names for their counts; transformers checks whether such a model loads whole
    counts = COUNTS if is_known(config) else ("vocab_size",)
    if lacking := [key for key in counts if type(config.get(key)) is not int]:
        raise SourceError(
            f"{what}: {CONFIG} of type {config.get('model_type')!r} has no number {lacking[0]}; this form of configuration is "
            "not supported"
        )
    layers = layers_of(config)
    if layers is None:
        raise SourceError(
            f"{what}: {CONFIG} of type {config.get('model_type')!r} has no number of layers ({', '.join(LAYER_COUNTS)}); this "
            "form of configuration is not supported"
        )
    if layers > limits.LAYERS:
        raise SourceError(
            f"{what}: {CONFIG}: num_hidden_layers is {layers}, over the limit of {limits.LAYERS:,}"
        )
    layer_types = config.get("layer_types")
    if layer_types is not None and len(layer_types) != layers:
        raise SourceError(f"{what}: {CONFIG} lists {len(layer_types)} layer_types for {layers} layers")
    for problem in computed.otherwise(config):
        raise SourceError(f"{what}: {CONFIG} {problem}")


def _check_modules(config: Mapping[str, Any], what: str) -> None:
    """Check the configurations of a model's modules, which leave out values that are transformers' defaults.

    Raises:
        SourceError: If a value has a wrong type, is over a limit or contradicts another one, or if no class is named.
    """
    for key, section in sections(config).items():
        where = f"{CONFIG}: {key}" if key else CONFIG
        if problems := wrong_types(section):
            raise SourceError("\n".join(f"{what}: {where}: {problem}" for problem in problems))
        layers = layers_of(section)
        if layers is not None and layers > limits.LAYERS:
            raise SourceError(f"{what}: {where} has {layers} layers, over the limit of {limits.LAYERS:,}")
        for problem in computed.ambiguous(section):
            raise SourceError(f"{what}: {where} {problem}")
    if not isinstance(config.get(WORDS, {}), dict):
        raise SourceError(f"{what}: {CONFIG}: {WORDS} is not a mapping")
    if not config.get("architectures"):
        raise SourceError(f"{what}: {CONFIG} names no class (architectures)")
