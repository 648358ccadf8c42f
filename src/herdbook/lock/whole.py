"""Whether index, headers and configuration of a source describe one model in a form that is supported."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.architectures.config import wrong_type
from herdbook.architectures.defaults import head_width, key_value_heads, value_of
from herdbook.architectures.form import EMBEDDINGS, HEAD, PREFIX, QUANTIZED, is_known
from herdbook.architectures.layers import LAYER_COUNTS, layers_of
from herdbook.architectures.meaning import LLAMA_LIKE, SAME_SCALING, is_tied
from herdbook.architectures.mixtures import BY_MODEL_TYPE
from herdbook.architectures.modules import reads_images, sections
from herdbook.errors import SourceError
from herdbook.layout import CONFIG, WEIGHTS_INDEX
from herdbook.sources import remote_code
from herdbook.sources.index import read_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from herdbook.lock.model import LockedTensor
    from herdbook.weights.checkpoint import Span

ENDS = 1 << 20  # bytes of a matrix that are compared at either end
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
# Types with rotary embeddings for each kind of layer, whose configurations in transformers 5 begin with the `rope_type` default
# and then update it: an entry without `rope_type` does not count.
BY_KIND_OF_LAYER = frozenset({"gemma3_text", "gemma3n_text", "olmo3", "modernbert-decoder"})
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
    if problem := wrong_type(config):
        raise SourceError(f"{what}: {CONFIG}: {problem}")
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
    for problem in _computed_otherwise(config):
        raise SourceError(f"{what}: {CONFIG} {problem}")


def _check_modules(config: Mapping[str, Any], what: str) -> None:
    """Check the configurations of a model's modules, which leave out values that are transformers' defaults.

    Raises:
        SourceError: If a value has a wrong type, is over a limit or contradicts another one, or if no class is named.
    """
    for key, section in sections(config).items():
        where = f"{CONFIG}: {key}" if key else CONFIG
        if problem := wrong_type(section):
            raise SourceError(f"{what}: {where}: {problem}")
        layers = layers_of(section)
        if layers is not None and layers > limits.LAYERS:
            raise SourceError(f"{what}: {where} has {layers} layers, over the limit of {limits.LAYERS:,}")
        for problem in _ambiguous(section):
            raise SourceError(f"{what}: {where} {problem}")
    if not config.get("architectures"):
        raise SourceError(f"{what}: {CONFIG} names no class (architectures)")


def _computed_otherwise(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why some version of transformers would not load a model, or would compute something else than another version."""
    scaling, parameters = ({**(config.get(key) or {})} for key in ("rope_scaling", "rope_parameters"))
    kind = config.get("model_type")
    yield from _ambiguous(config)
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
    if config.get("is_causal", True) is not True:
        yield f"has is_causal {config['is_causal']!r}, so that a token sees those that follow it; such models write no text"
    if config["num_attention_heads"] > 0:  # which the shapes show otherwise
        yield from _unusable(config)
    for scaled in kinds:
        if scaled not in SCALINGS:
            yield f"has rotary embeddings of type {scaled!r}; known are {', '.join(SCALINGS)}"
            continue
        settings = {**scaling, **parameters}
        if lacking := [key for key in SCALINGS[scaled] if not settings.get(key)]:
            yield f"has rotary embeddings of type {scaled!r} without {lacking[0]}"
        for key in SCALINGS[scaled]:
            yield from _wrong_setting(config, key, settings.get(key))
    if any(
        section.get("partial_rotary_factor") not in (None, 1) for section in (config, scaling, parameters)
    ):
        yield f"has a partial_rotary_factor, which type {kind!r} does not have"
    if (activation := config.get("hidden_act")) and activation not in ACTIVATIONS:
        yield f"has hidden_act {activation!r}, which transformers does not have"


def _unusable(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a model loads and fails at the first token; of widths and counts, those that its shapes do not show."""
    heads, groups, width = config["num_attention_heads"], key_value_heads(config), head_width(config)
    if groups > 0 and heads % groups:
        yield f"has {heads} heads, which is not a multiple of its {groups} key and value heads"
    if width % 2:
        yield f"has heads of width {width}, which rotary embeddings cannot turn in pairs"
    family = BY_MODEL_TYPE.get(config["model_type"])
    if family is None:
        return
    experts, chosen = (value_of(config, key) for key in (family.counts[0], "num_experts_per_tok"))
    if isinstance(experts, int) and isinstance(chosen, int) and not 0 < chosen <= experts:
        yield f"has num_experts_per_tok {chosen}, and {experts} experts"


def _wrong_setting(config: Mapping[str, Any], key: str, value: Any) -> Iterator[str]:
    """Yield why a setting of scaled rotary embeddings is not a positive number, or not one for each pair of a head's dimensions."""
    if not key.startswith(("short_", "long_")):
        if not isinstance(value, int | float) or value <= 0:
            yield f"has rotary embeddings with {key} {value!r}, which is not a positive number"
        return
    width = config.get("head_dim") or config["hidden_size"] // max(1, config["num_attention_heads"])
    if not isinstance(value, list) or len(value) != width // 2:
        have = f"{len(value)} numbers" if isinstance(value, list) else repr(value)
        yield f"has rotary embeddings with {have} as {key}, and heads of width {width} need {width // 2}"


def _ambiguous(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why versions of transformers read different ways to scale rotary embeddings from one section."""
    kind = config.get("model_type")
    for key in ("rope_scaling", "rope_parameters"):
        section = config.get(key) or {}
        inner = {f"{key}.{name}": value for name, value in section.items() if isinstance(value, dict)}
        for place, settings in {key: section, **inner}.items():
            old, new = (settings.get(name) for name in ("type", "rope_type"))
            if old and new and SAME_SCALING.get(old, old) != SAME_SCALING.get(new, new):
                yield f"has {place} with type {old!r} and rope_type {new!r}; remove the one that is wrong"
        if kind not in BY_KIND_OF_LAYER:
            continue
        if (
            key == "rope_scaling"
            and section.get("type", "default") != "default"
            and "rope_type" not in section
        ):
            yield (
                f"has rope_scaling with type {section['type']!r}, which transformers 5 ignores for type {kind!r}; name it rope_type, "
                "if the model was trained so, or remove it"
            )
        if key == "rope_parameters" and section and not inner:
            yield (
                f"has rope_parameters that are not for each kind of layers, which transformers 5 ignores for type {kind!r}; put "
                "them under full_attention and sliding_attention"
            )


def _scaling_of(section: Mapping[str, Any]) -> str:
    return str(section.get("rope_type") or section.get("type") or "default")
