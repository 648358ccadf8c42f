"""The tensors that a configuration implies: what transformers loads, by name and shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.architectures.defaults import default_of
from herdbook.architectures.meaning import is_tied
from herdbook.architectures.mixtures import BY_MODEL_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.architectures.mixtures import Family, Place

    Form = dict[str, tuple[int, ...]]

HEAD = "lm_head.weight"
# Keys of a configuration under which quantized weights are described: tensors of other names, dtypes and shapes.
QUANTIZED = ("quantization_config", "compression_config")
PREFIX = "model."
EMBEDDINGS = f"{PREFIX}embed_tokens.weight"


@dataclass(frozen=True)
class _Kind:
    """What distinguishes the model types of the Llama family.

    Args:
        architecture: The class in ``architectures`` of ``config.json``.
        biases: Projections of the attention that have a bias.
        switch: The key that turns these off if it is false.
        optional_biases: Those that have one with ``attention_bias``.
        mlp_bias: Whether ``mlp_bias`` gives one to the MLP.
        norms: Whether queries and keys are normalized.
        width_of_experts: The key with the width of an expert.
        width_of_shared: The key with the width of the shared expert, if it is not a multiple of an expert's.
    """

    architecture: str
    biases: str = ""
    switch: str | None = None
    optional_biases: str = ""
    mlp_bias: bool = False
    norms: bool = False
    width_of_experts: str = "moe_intermediate_size"
    width_of_shared: str | None = None


# Source: transformers, configuration and modeling files of each type; for DeepSeek, the code in deepseek-ai/deepseek-moe-16b-base.
_KINDS = {
    "llama": _Kind("LlamaForCausalLM", optional_biases="qkvo", mlp_bias=True),
    "mistral": _Kind("MistralForCausalLM"),
    "qwen2": _Kind("Qwen2ForCausalLM", biases="qkv"),
    "qwen3": _Kind("Qwen3ForCausalLM", optional_biases="qkvo", norms=True),
    "mixtral": _Kind("MixtralForCausalLM", width_of_experts="intermediate_size"),
    "deepseek": _Kind("DeepseekForCausalLM", optional_biases="qkvo"),
    "qwen2_moe": _Kind(
        "Qwen2MoeForCausalLM",
        biases="qkv",
        switch="qkv_bias",
        width_of_shared="shared_expert_intermediate_size",
    ),
    "qwen3_moe": _Kind("Qwen3MoeForCausalLM", optional_biases="qkvo", norms=True),
}


def is_known(config: Mapping[str, Any]) -> bool:
    """Return whether the tensors that a configuration implies are known for its model type."""
    kind = config.get("model_type")
    return isinstance(kind, str) and kind in _KINDS


def implied(config: Mapping[str, Any], *, fused: bool = False) -> Form:
    """Return the shape of each tensor that a configuration implies, by name.

    Args:
        config: The content of ``config.json``, of a known model type.
        fused: Whether the experts of a mixture are stored as fused tensors.

    Raises:
        ValueError: If the configuration lacks a width or a count, or one of them is not a number; the message names it.
    """
    model_type = config["model_type"]
    kind = _KINDS[model_type]
    hidden, heads, vocabulary = (
        _count(config, key) for key in ("hidden_size", "num_attention_heads", "vocab_size")
    )
    groups = _count(
        config, "num_key_value_heads", default_of(model_type, "num_key_value_heads") or heads, null=heads
    )
    split = hidden // heads
    width = _count(config, "head_dim", default_of(model_type, "head_dim") or split, null=split)
    biases = kind.biases if kind.switch is None or config.get(kind.switch, True) else ""
    biases += kind.optional_biases if config.get("attention_bias") else ""
    form: Form = {
        EMBEDDINGS: (vocabulary, hidden),
        f"{PREFIX}norm.weight": (hidden,),
    }
    if not is_tied(config):
        form[HEAD] = (vocabulary, hidden)
    projections = {
        "q": (heads * width, hidden),
        "k": (groups * width, hidden),
        "v": (groups * width, hidden),
        "o": (hidden, heads * width),
    }
    family = BY_MODEL_TYPE.get(config["model_type"])
    layers = _count(config, "num_hidden_layers")
    if layers * len(projections) > limits.TENSORS:
        raise ValueError(f"implies more than {limits.TENSORS:,} tensors")
    for layer in range(layers):
        inside = f"{PREFIX}layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            form[f"{inside}.{norm}.weight"] = (hidden,)
        for name, shape in projections.items():
            form[f"{inside}.self_attn.{name}_proj.weight"] = shape
            if name in biases:
                form[f"{inside}.self_attn.{name}_proj.bias"] = shape[:1]
        if kind.norms:
            form |= {f"{inside}.self_attn.{name}_norm.weight": (width,) for name in "qk"}
        if family and _is_sparse(config, family, layer):
            form |= _mixture(config, kind, family, layer, fused=fused and family.fused)
        else:
            form |= _mlp(config, kind, inside)
        if len(form) > limits.TENSORS:
            raise ValueError(f"implies more than {limits.TENSORS:,} tensors")
    return form


def bias_setting(tensor: str) -> str:
    """Return the key of ``config.json`` that decides whether a bias exists; empty for other tensors."""
    if not tensor.endswith("_proj.bias"):
        return ""
    return "mlp_bias" if ".mlp." in tensor else "attention_bias"


def other_class(config: Mapping[str, Any], expected: str) -> list[str]:
    """Return a line if ``architectures`` in a configuration names another class than the model type is loaded as.

    transformers goes by ``model_type``; programs that serve or convert models go by ``architectures``, and a classifier or a
    reward model lacks the output head, or has another one.

    Args:
        config: The content of ``config.json``.
        expected: The class of language models of its type.
    """
    named = config.get("architectures") or []
    if isinstance(named, list) and all(
        str(name).lower() == expected.lower()
        for name in named  # some early Llamas have LLaMAForCausalLM
    ):
        return []
    line = (
        f"its config.json has architectures {named}, and {expected} is the language model of its model_type "
        f"{config.get('model_type')!r}; correct the one that is wrong, or use a model of that class"
    )
    return [line]


def misfits(config: Mapping[str, Any], form: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return how a model's tensors differ from those that its configuration implies, one line for each kind of difference.

    A head beside tied embeddings and rotary frequencies, which older versions of transformers stored, are not differences.

    A class that contradicts the model type is one.

    Args:
        config: The content of ``config.json``, of a known model type.
        form: The shape of each tensor by name.
    """
    if problems := other_class(config, _KINDS[config["model_type"]].architecture):
        return problems
    try:
        expected = implied(config, fused=any(name.endswith(".mlp.experts.gate_up_proj") for name in form))
    except ValueError as error:
        return [f"its config.json {error}"]
    spare = {HEAD} if is_tied(config) else set()
    missing = [name for name in expected if name not in form]
    unknown = [
        name for name in form if name not in expected and name not in spare and not name.endswith("inv_freq")
    ]
    bare = [name.removeprefix(PREFIX) for name in missing if name.removeprefix(PREFIX) in form]
    if bare:
        line = (
            f"its tensors lack the prefix {PREFIX!r} (it has {bare[0]}): load it with transformers' AutoModelForCausalLM, save "
            "it with save_pretrained, and name that folder"
        )
        return [line]
    wrong = [
        (name, tuple(form[name]), shape)
        for name, shape in expected.items()
        if name in form and tuple(form[name]) != shape
    ]
    return described(missing, unknown, wrong)


def described(
    missing: list[str], unknown: list[str], wrong: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
) -> list[str]:
    """Return one line for each kind of difference between a model's tensors and those that its configuration implies.

    Args:
        missing: Names of tensors that it lacks.
        unknown: Names of tensors that the configuration does not imply.
        wrong: Tensors with another shape: the name, the shape, and the one that the configuration implies.
    """
    lines = []
    if missing:
        lines.append(
            f"its config.json implies the tensor {missing[0]}, which it lacks{_more(missing)}; transformers would draw it at "
            "random"
        )
    if unknown:
        lines.append(f"it has the tensor {unknown[0]}, which its config.json does not imply{_more(unknown)}")
    if wrong:
        name, shape, other = wrong[0]
        lines.append(
            f"{name} has shape {list(shape)}, and its config.json implies {list(other)}{_more(wrong)}"
        )
    return lines


def _mlp(config: Mapping[str, Any], kind: _Kind, inside: str) -> Form:
    hidden, inner = _count(config, "hidden_size"), _count(config, "intermediate_size")
    form: Form = {}
    for name, shape in {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}.items():
        form[f"{inside}.mlp.{name}_proj.weight"] = shape
        if kind.mlp_bias and config.get("mlp_bias"):
            form[f"{inside}.mlp.{name}_proj.bias"] = shape[:1]
    return form


def _mixture(config: Mapping[str, Any], kind: _Kind, family: Family, layer: int, *, fused: bool) -> Form:
    """Return the routers and experts of a layer."""
    hidden, inner = _count(config, "hidden_size"), _count(config, kind.width_of_experts)
    experts = _count(config, family.counts[0])
    if experts > limits.TENSORS:
        raise ValueError(f"implies more than {limits.TENSORS:,} tensors")
    form: Form = {family.router(layer, fused=fused): (experts, hidden)}
    places: dict[Place, int] = {}
    if fused:
        inside = f"{PREFIX}layers.{layer}.mlp.experts"
        form[f"{inside}.gate_up_proj"] = (experts, 2 * inner, hidden)
        form[f"{inside}.down_proj"] = (experts, hidden, inner)
    else:
        places |= dict.fromkeys(range(experts), inner)
    if kind.width_of_shared:
        places["shared"] = _count(config, kind.width_of_shared)
    elif family.shared and config.get(family.counts[1]):
        places["shared"] = inner * _count(config, family.counts[1])
    for place, rows in places.items():
        for matrix, shape in (
            ("gate_proj", (rows, hidden)),
            ("up_proj", (rows, hidden)),
            ("down_proj", (hidden, rows)),
        ):
            form[family.expert(layer, place, matrix)] = shape
    if family.shared_gate:
        form[family.shared_router(layer)] = (1, hidden)
    return form


def _is_sparse(config: Mapping[str, Any], family: Family, layer: int) -> bool:
    """Return whether a mixture's layer has experts; others have an MLP. A family reads the settings that it has alone."""
    read = {key: config.get(key, value) for key, value in family.settings.items()}
    dense = read.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise ValueError(f"has {dense!r} as mlp_only_layers, which is not a list")  # noqa: TRY004 - a value in a file
    if layer in dense or (
        read.get("first_k_dense_replace") and layer < _count(read, "first_k_dense_replace")
    ):
        return False
    if "moe_layer_freq" in read:
        return layer % _count(read, "moe_layer_freq") == 0
    return (layer + 1) % _count(read, "decoder_sparse_step", 1) == 0


def _count(config: Mapping[str, Any], key: str, default: int | None = None, null: int | None = None) -> int:
    """Return a width or a count.

    Args:
        config: The configuration.
        key: Its key.
        default: The value if the configuration does not contain it.
        null: The value if it is null.

    Raises:
        ValueError: If it is missing or not a positive whole number.
    """
    value = config.get(key, default)
    if value is None and null is not None:
        value = null
    if value is None:
        raise ValueError(f"lacks {key!r}")
    if type(value) is not int or value < 1:
        raise ValueError(f"has {value!r} as {key}, which is not a positive whole number")
    return value


def _more(names: list[Any]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
