"""A program that makes a model without weights, as transformers does, and prints which of its tensors LoRA matrices fit.

It reads a configuration as JSON; `herdbook.extract.pair` runs it for types that are not of the Llama family.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook import apart
from herdbook.architectures.dense import matrix_of
from herdbook.architectures.form import EMBEDDINGS, is_known
from herdbook.architectures.meaning import is_tied
from herdbook.architectures.mixtures import BY_MODEL_TYPE
from herdbook.errors import RecipeError
from herdbook.weights.loading import relevant

if TYPE_CHECKING:
    from collections.abc import Mapping

MATRIX = 2  # dimensions


@dataclass(frozen=True)
class Linear:
    """The modules of a model, as PEFT finds them.

    Args:
        layers: The weights of linear layers, except for the output head.
        names: The tensors that transformers has under the names of the files; it renames some while it loads them.
        embeddings: The weight of the embeddings.
        tied: Whether that is the output head, too.
    """

    layers: frozenset[str]
    names: frozenset[str]
    embeddings: str
    tied: bool


def linear_of(config: Mapping[str, Any], form: Mapping[str, tuple[int, ...]], place: str) -> Linear:
    """Return the modules of a model that loads whole.

    Args:
        config: The content of ``config.json``.
        form: The shape of each tensor by name.
        place: The model, for error messages.

    Raises:
        RecipeError: If it is a mixture, whose experts PEFT trains in other ways, or transformers cannot make it.
    """
    if config.get("model_type") in BY_MODEL_TYPE:
        raise RecipeError(
            f"{place}: is a mixture of experts ({config['model_type']}), whose experts versions of PEFT train in different ways; "
            "only dense models are supported"
        )
    if is_known(config):
        layers = frozenset(name for name, shape in form.items() if matrix_of(name) and len(shape) == MATRIX)
        return Linear(layers, frozenset(form), EMBEDDINGS, is_tied(config))
    question = {"config": relevant(dict(config))}
    try:
        answer = apart.ask("herdbook.extract.linear", json.dumps(question, sort_keys=True))
    except apart.FailedError as error:
        raise RecipeError(f"{place}: transformers cannot make it: its process {error}") from error
    layers, names = (frozenset(answer[key]) & form.keys() for key in ("layers", "names"))
    return Linear(layers, names, answer["embeddings"], answer["tied"])


def reply(config: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ``Linear``, by the names of transformers' modules."""
    import torch
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    kind = config["model_type"]
    settings = CONFIG_MAPPING[kind](
        **{key: value for key, value in config.items() if key not in {"architectures", "model_type"}}
    )
    with torch.device("meta"):
        model = MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[kind]]._from_config(  # noqa: SLF001 - what AutoModel calls
            settings, attn_implementation="eager"
        )
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): f"{name}.weight" for name, module in model.named_modules()}
    layers = [
        names[id(module)]
        for module in model.modules()
        if type(module) is torch.nn.Linear and module is not head
    ]
    tied = bool(getattr(settings.get_text_config(), "tie_word_embeddings", False))
    return {
        "layers": layers,
        "names": [name for name, _ in model.named_parameters()],
        "embeddings": names[id(inputs)],
        "tied": tied,
    }


def main() -> None:
    """Answer the question on standard input."""
    with redirect_stdout(sys.stderr), suppress(ModuleNotFoundError):
        import transformers.modeling_utils  # noqa: F401 - not within the limits that the question has
    apart.answer(reply)


if __name__ == "__main__":
    main()
