"""A program that loads a model without its weights, as transformers does, and prints what does not fit.

It reads a configuration and the shapes of tensors as JSON, and prints ``problems`` as JSON, or the ``error`` that kept it from
looking for them. `herdbook.weights.loading` runs it: an unchecked configuration decides how much memory and time
transformers needs, and what it changes in its process.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

from herdbook.apart import answer
from herdbook.architectures.form import described, other_class
from herdbook.architectures.layers import layers_of
from herdbook.architectures.modules import reads_images, sections
from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Mapping


def problems(config: Mapping[str, Any], form: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return why transformers does not load a model whole, one line for each kind of difference.

    Args:
        config: The content of ``config.json``, without anything for which transformers would load other code.
        form: The shape of each tensor by name.

    Raises:
        StepError: If transformers is not installed, or has no language model of this type.
    """
    kind = config.get("model_type")
    kind = kind if isinstance(kind, str) else repr(kind)
    try:
        import accelerate  # noqa: F401 - transformers requires it for models without content
        import torch
        from transformers import (
            CONFIG_MAPPING,
            MODEL_FOR_CAUSAL_LM_MAPPING,
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        )
    except ModuleNotFoundError as error:
        raise StepError(
            f"a model of type {kind[:40]!r} needs {error.name} for this check: pip install 'herdbook[build]'"
        ) from error
    images = reads_images(config)
    classes = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if images else MODEL_FOR_CAUSAL_LM_MAPPING
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in classes:
        what = "model that reads images and text" if images else "language model"
        raise StepError(f"transformers has no {what} of type {kind[:40]!r}")
    model_class = classes[CONFIG_MAPPING[kind]]
    if named := other_class(config, model_class.__name__):
        return named
    for section in sections(config).values():
        if deep := _too_deep(section.get("depth") if images else None, form) or _too_deep(
            layers_of(section), form
        ):
            return deep  # before a configuration class makes a list of all layers
    try:
        settings = CONFIG_MAPPING[kind](
            **{key: value for key, value in config.items() if key not in {"architectures", "model_type"}}
        )
    except Exception as error:  # noqa: BLE001 - each configuration class has checks and errors of its own
        return [f"transformers cannot read its config.json: {_short(error)}"]
    if deep := _too_deep(getattr(settings, "num_hidden_layers", None), form):
        return deep  # where config.json has another name for it
    try:
        _, report = model_class.from_pretrained(
            None,
            config=settings,
            state_dict={name: torch.empty(tuple(shape), device="meta") for name, shape in form.items()},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            device_map={"": "meta"},
            attn_implementation="eager",
        )
    except Exception as error:  # noqa: BLE001 - each model class has errors of its own
        return [f"transformers cannot load it: {_short(error)}"]
    wrong = sorted(
        (name, tuple(shape), tuple(expected)) for name, shape, expected in report["mismatched_keys"]
    )
    return described(sorted(report["missing_keys"]), sorted(report["unexpected_keys"]), wrong) + sorted(
        str(line) for line in report.get("error_msgs", ())
    )


def _too_deep(layers: Any, form: Mapping[str, tuple[int, ...]]) -> list[str]:
    if isinstance(layers, int) and layers > len(form):
        return [f"its config.json implies {layers} layers, but it has only {len(form)} tensors"]
    return []


def _short(error: Exception) -> str:
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    return next(filter(None, lines), type(error).__name__)[:200]


def main() -> None:
    """Answer the question on standard input."""
    with redirect_stdout(sys.stderr), suppress(ModuleNotFoundError):  # it is named below
        import transformers.modeling_utils  # noqa: F401
    answer(reply)


def reply(config: dict[str, Any], form: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the ``problems``, or the ``error`` that kept the program from looking for them."""
    try:
        return {"problems": problems(config, form)}
    except StepError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    main()
