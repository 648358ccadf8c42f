"""The tensors that a configuration implies: what transformers loads, by name and shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.meaning import is_tied

if TYPE_CHECKING:
    from collections.abc import Mapping

    Form = dict[str, tuple[int, ...]]

HEAD = "lm_head.weight"
PREFIX = "model."
EMBEDDINGS = f"{PREFIX}embed_tokens.weight"


@dataclass(frozen=True)
class _Kind:
    """What tells one model type of the Llama family from another.

    Args:
        key_value_heads: Their number if ``config.json`` does not contain it; None for that of all heads.
        head_width: Likewise the width of a head; None for the hidden size divided by the heads.
        biases: Projections of the attention that always have a bias.
        optional_biases: Those that have one with ``attention_bias``.
        mlp_bias: Whether ``mlp_bias`` gives one to the MLP.
        norms: Whether queries and keys are normalized.
    """

    key_value_heads: int | None = None
    head_width: int | None = None
    biases: str = ""
    optional_biases: str = ""
    mlp_bias: bool = False
    norms: bool = False


# Source: transformers, configuration and modeling files of each type.
_KINDS = {
    "llama": _Kind(optional_biases="qkvo", mlp_bias=True),
    "mistral": _Kind(key_value_heads=8),
    "qwen2": _Kind(key_value_heads=32, biases="qkv"),
    "qwen3": _Kind(key_value_heads=32, head_width=128, optional_biases="qkvo", norms=True),
}


def implied(config: Mapping[str, Any]) -> Form | None:
    """Return the shape of each tensor that a configuration implies, by name; None for a type that is not in the table.

    Args:
        config: The content of ``config.json``.

    Raises:
        KeyError: If the configuration lacks a width or a count.
    """
    kind = _KINDS.get(str(config.get("model_type")))
    if kind is None:
        return None
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    groups = config.get("num_key_value_heads", kind.key_value_heads) or heads
    width = config.get("head_dim", kind.head_width) or hidden // heads
    biases = kind.biases + (kind.optional_biases if config.get("attention_bias") else "")
    form: Form = {
        EMBEDDINGS: (config["vocab_size"], hidden),
        f"{PREFIX}norm.weight": (hidden,),
    }
    if not is_tied(config):
        form[HEAD] = (config["vocab_size"], hidden)
    projections = {
        "q": (heads * width, hidden),
        "k": (groups * width, hidden),
        "v": (groups * width, hidden),
        "o": (hidden, heads * width),
    }
    matrices = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    for layer in range(config["num_hidden_layers"]):
        inside = f"{PREFIX}layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            form[f"{inside}.{norm}.weight"] = (hidden,)
        for name, shape in projections.items():
            form[f"{inside}.self_attn.{name}_proj.weight"] = shape
            if name in biases:
                form[f"{inside}.self_attn.{name}_proj.bias"] = shape[:1]
        for name, shape in matrices.items():
            form[f"{inside}.mlp.{name}_proj.weight"] = shape
            if kind.mlp_bias and config.get("mlp_bias"):
                form[f"{inside}.mlp.{name}_proj.bias"] = shape[:1]
        if kind.norms:
            form |= {f"{inside}.self_attn.{name}_norm.weight": (width,) for name in "qk"}
    return form


def bias_setting(tensor: str) -> str:
    """Return the key of ``config.json`` that decides whether a bias exists; empty for other tensors."""
    if not tensor.endswith("_proj.bias"):
        return ""
    return "mlp_bias" if ".mlp." in tensor else "attention_bias"


def misfits(config: Mapping[str, Any], form: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return how a model's tensors differ from those that its configuration implies, one line for each kind of difference.

    A head beside tied embeddings and rotary frequencies, which older versions of transformers stored, are not differences.

    Args:
        config: The content of ``config.json``.
        form: The shape of each tensor by name.

    Raises:
        KeyError: If the configuration lacks a width or a count.
    """
    expected = implied(config)
    if expected is None:
        return []
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
    wrong = [name for name, shape in expected.items() if name in form and tuple(form[name]) != shape]
    lines = []
    if missing:
        lines.append(
            f"its config.json implies the tensor {missing[0]}, which it lacks{_more(missing)}; transformers would draw it at "
            "random"
        )
    if unknown:
        lines.append(f"it has the tensor {unknown[0]}, which its config.json does not imply{_more(unknown)}")
    if wrong:
        lines.append(
            f"{wrong[0]} has shape {list(form[wrong[0]])}, and its config.json implies {list(expected[wrong[0]])}"
            f"{_more(wrong)}"
        )
    return lines


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
