"""Whether index, headers and configuration of a source describe one model in a form that is supported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.architectures.config import wrong_type
from herdbook.architectures.form import QUANTIZED, is_known
from herdbook.architectures.layers import LAYER_COUNTS, layers_of
from herdbook.architectures.meaning import LLAMA_LIKE
from herdbook.errors import SourceError
from herdbook.layout import CONFIG, WEIGHTS_INDEX
from herdbook.sources import remote_code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from herdbook.lock.model import LockedTensor

COUNTS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")

# The ways to scale rotary embeddings that transformers has, each with the settings that it requires. Source: its
# `modeling_rope_utils.py`.
SCALINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
# The keys of transformers' `ACT2FN`.
ACTIVATIONS = frozenset(
    {
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
        *(
            "gelu_pytorch_tanh",
            "hardswish",
            "laplace",
            "leaky_relu",
            "linear",
            "mish",
            "quick_gelu",
            "relu",
            "relu2",
        ),
        *("relu6", "sigmoid", "silu", "swish", "tanh"),
    }
)
UNQUANTIZED = "Name the repository with the weights before quantization, in bfloat16, float16 or float32."
# Ends of the names of what the common methods store in place of a matrix, or beside it.
QUANTIZED_NAMES = (
    *(".qweight", ".qzeros", ".scales", ".g_idx", ".weight_packed", ".weight_scale", ".weight_scale_inv"),
    *(".absmax", ".quant_map", ".SCB", ".weight_format", ".input_scale", ".weight_zero_point"),
)
# 8-bit floats, and integers that are packed matrices.
QUANTIZED_DTYPES = ("F8", "I8", "U8", "I16", "I32")


def read_config(content: bytes, what: str, file: str = "configuration") -> dict[str, Any]:
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
    weight_map = {
        str(name): str(file) for name, file in jsonio.load(index, limits.DOCUMENT)["weight_map"].items()
    }
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
    # other types have other names for their counts; transformers is asked whether such a model loads whole
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
    for problem in _computed_otherwise(config):
        raise SourceError(f"{what}: {CONFIG} {problem}")


def _computed_otherwise(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why some version of transformers would not load a model, or would compute something else than another version."""
    scaling, parameters = ({**(config.get(key) or {})} for key in ("rope_scaling", "rope_parameters"))
    kind = config.get("model_type")
    if any(isinstance(value, dict) for value in parameters.values()):
        if kind in LLAMA_LIKE:
            yield f"has rope_parameters for kinds of layers, which type {kind!r} does not have"
        return
    kinds = {_scaling_of(section) for section in (scaling, parameters) if section}
    shared = (scaling.keys() & parameters.keys()) - {"type", "rope_type", "rope_theta"}
    if len(kinds) > 1 or any(scaling[key] != parameters[key] for key in shared):
        yield "has rope_scaling and rope_parameters that contradict each other; remove one of them"
    thetas = {
        section["rope_theta"] for section in (config, parameters) if section.get("rope_theta") is not None
    }
    if len(thetas) > 1:
        yield "has different values as rope_theta and in rope_parameters; remove one of them"
    if kind not in LLAMA_LIKE:
        return
    for scaled in kinds:
        if scaled not in SCALINGS:
            yield f"has rotary embeddings of type {scaled!r}, which is none of {', '.join(SCALINGS)}"
        elif lacking := [key for key in SCALINGS[scaled] if not {**scaling, **parameters}.get(key)]:
            yield f"has rotary embeddings of type {scaled!r} without {lacking[0]}"
    if (activation := config.get("hidden_act")) and activation not in ACTIVATIONS:
        yield f"has hidden_act {activation!r}, which transformers does not have"


def _scaling_of(section: Mapping[str, Any]) -> str:
    return str(section.get("rope_type") or section.get("type") or "default")
