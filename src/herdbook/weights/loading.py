"""Whether a model loads whole: each tensor that its configuration implies exists, with its shape, and no others do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from herdbook.architectures.form import described, is_known, misfits
from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Entries of a configuration that are about other things than the set of tensors, or would make transformers load other code.
IRRELEVANT = frozenset({"model_type", "architectures", "auto_map", "dtype", "torch_dtype"})


def loading_problems(config: Mapping[str, Any], form: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return why a model does not load whole, one line for each kind of difference.

    A model type that is not in our own table is loaded by transformers, with tensors that have shapes and no content.

    Args:
        config: The content of ``config.json``.
        form: The shape of each tensor by name.

    Raises:
        StepError: If transformers is not installed, or has no language model of this type.
    """
    if is_known(config):
        return misfits(config, form)
    return by_transformers(config, form)


def by_transformers(config: Mapping[str, Any], form: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return why transformers does not load a model whole. Arguments and errors are those of ``loading_problems``."""
    kind = str(config.get("model_type"))
    try:
        import torch
        from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
    except ModuleNotFoundError as error:
        raise StepError(
            f"a model of type {kind[:40]!r} needs {error.name} for this check: pip install 'herdbook[build]'"
        ) from error
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise StepError(f"transformers has no language model of type {kind[:40]!r}")
    plain = {key: value for key, value in config.items() if key not in IRRELEVANT}
    # Some configuration classes make a list of all layers at once.
    layers = config.get("num_hidden_layers")
    if isinstance(layers, int) and layers > len(form):
        return [f"its config.json implies {layers} layers, but it has only {len(form)} tensors"]
    with _quiet():
        try:
            settings = CONFIG_MAPPING[kind](**plain)
        except Exception as error:  # noqa: BLE001 - each configuration class has checks and errors of its own
            return [f"transformers cannot read its config.json: {_short(error)}"]
        tensors = {name: torch.empty(shape, device="meta") for name, shape in form.items()}
        try:
            _, report = MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[kind]].from_pretrained(
                None,
                config=settings,
                state_dict=tensors,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                device_map={"": "meta"},
            )
        except Exception as error:  # noqa: BLE001 - each model class has errors of its own
            return [f"transformers cannot load it: {_short(error)}"]
    wrong = sorted(
        (name, tuple(shape), tuple(expected)) for name, shape, expected in report["mismatched_keys"]
    )
    return described(sorted(report["missing_keys"]), sorted(report["unexpected_keys"]), wrong) + sorted(
        str(line) for line in report.get("error_msgs", ())
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from writing its own report and progress bars."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
