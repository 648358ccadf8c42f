"""Whether a model loads whole: each tensor that its configuration implies exists, with its shape, and no others do."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from herdbook import apart
from herdbook.architectures.form import QUANTIZED, is_known, misfits
from herdbook.errors import StepError
from herdbook.quantization.schemes import scheme_of
from herdbook.weights.compressed import full_width

if TYPE_CHECKING:
    from collections.abc import Mapping

# Entries of a configuration that do not decide which tensors exist, also as private ones (`_name_or_path`); for some,
# transformers would load other code.
IRRELEVANT = frozenset(
    {
        *("auto_map", "commit_hash", "custom_pipelines", "name_or_path", "transformers_version"),
        *("fusion_config", "dtype", "torch_dtype", "use_cache"),
        *QUANTIZED,
    }
)
IMPLEMENTATION = "_implementation"  # in the names of settings that choose how something is computed


def loading_problems(config: Mapping[str, Any], form: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return why a model does not load whole, one line for each kind of difference.

    A model type that is not in our own table is loaded by transformers, with tensors that have shapes and no content. Since a
    configuration may come from anywhere, this happens in a process of its own, without network, in limited time and memory.

    Args:
        config: The content of ``config.json``.
        form: The shape of each tensor by name.

    Raises:
        StepError: If transformers is not installed, or has no language model of this type.
    """
    if scheme := scheme_of(config):
        restored, problems = full_width(form, scheme, config)
        full = {key: value for key, value in config.items() if key not in scheme.keys}
        return problems or loading_problems(full, restored)
    for key in QUANTIZED:
        if config.get(key) is not None:
            return [f"its config.json has {key}, so transformers would look for quantized tensors"]
    if is_known(config):
        return misfits(config, form)
    question = {"config": relevant(dict(config)), "form": dict(form)}
    answer = _answered(json.dumps(question, sort_keys=True))
    if error := answer.get("error"):
        raise StepError(error)
    return [str(line) for line in answer["problems"]]


def relevant(value: Any) -> Any:
    """Return a configuration without entries that do not decide which tensors exist, at any depth."""
    if isinstance(value, dict):
        return {
            key: relevant(item)
            for key, item in value.items()
            if key.lstrip("_") not in IRRELEVANT and IMPLEMENTATION not in key
        }
    return [relevant(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=64)
def _answered(question: str) -> dict[str, Any]:
    """Ask `herdbook.weights.hollow`; models of a recipe often differ in the content of their tensors alone."""
    try:
        return apart.ask("herdbook.weights.hollow", question)
    except apart.FailedError as error:
        return {"problems": [f"transformers cannot load it: its process {error}"]}
