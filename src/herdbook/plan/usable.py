"""Whether llama.cpp can read what a recipe quantizes, and transformers what it measures, releases or reads texts with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures import conversion
from herdbook.architectures.gguf_tensors import gguf_shapes
from herdbook.architectures.mixtures import BY_MODEL_TYPE, leftover_window
from herdbook.errors import CheckpointError, RecipeError, StepError
from herdbook.plan.images import unusable
from herdbook.plan.imatrix import check_imatrix
from herdbook.plan.loss import unreadable
from herdbook.plan.quantize import check_types, note_of
from herdbook.plan.tokenizer_model import FORMATS, misread
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan.model import Node
    from herdbook.recipe import Recipe


def check_usable(recipe: Recipe, nodes: Mapping[str, Node]) -> list[str]:
    """Return warnings about models that llama.cpp reads otherwise than transformers, one line each.

    Raises:
        RecipeError: If llama.cpp or transformers cannot read a model, or would read it as another one.
    """
    if refused := [*unusable(recipe, nodes)]:
        raise RecipeError(refused)
    problems = misread(recipe, nodes)
    released = nodes[recipe.release.model]
    if recipe.gguf and isinstance(released.recipe, Moe) and released.recipe.moe.layout == "fused":
        problems.append(
            "quantize: llama.cpp's converter does not read `layout: fused`; leave out `quantize` or the layout"
        )
    if recipe.gguf and not problems:
        if reason := conversion.objection(released.config, released.form):
            problems.append(
                f"quantize: {released.name!r} cannot be converted to GGUF: {reason}; leave `quantize` out"
            )
        elif reason := _unstorable(released):
            problems.append(f"quantize: {reason}; leave `quantize` out")
        elif not set(conversion.TOKENIZERS) & set(released.files):
            problems.append(
                f"quantize: {released.name!r} has no tokenizer ({' or '.join(conversion.TOKENIZERS)}), which a GGUF must contain; leave "
                "`quantize` out, or add the tokenizer to the source"
            )
    for index, name in enumerate(recipe.evaluate.models if recipe.evaluate else []):
        mixture = BY_MODEL_TYPE.get(nodes[name].config.get("model_type", ""))
        if mixture and not mixture.loadable:
            problems.append(
                f"evaluate.models.{index}: transformers cannot load {name!r}, since it has no class for family "
                f"{mixture.name}; leave the model out"
            )
    mixture = BY_MODEL_TYPE.get(released.config.get("model_type", ""))
    if recipe.evaluate and recipe.gguf and recipe.gguf.evaluate and mixture and not mixture.loadable:
        problems.append(
            f"quantize: transformers cannot load {released.name!r} to measure its files, since it has no class for family "
            f"{mixture.name}; set `evaluate: false`"
        )
    if reason := unreadable(recipe, released):
        problems.append(reason)
    if problems:
        raise RecipeError(problems)
    check_types(recipe, released)
    check_imatrix(recipe, released)
    warnings = []
    if not FORMATS & set(released.files):
        warnings.append(
            f"release: {released.name!r} has no tokenizer ({', '.join(sorted(FORMATS))}), so that the release cannot be used with "
            "text; add one to the source"
        )
    if window := leftover_window(released.config):
        warnings.append(
            f"release: config.json of {released.name!r} has sliding_window {window}, which its type does not have; yet transformers "
            "forgets what lies further back when it writes a longer text. Remove it from the source, if the model was trained without"
        )
    if recipe.gguf and (window := conversion.ignored_window(released.config)):
        warnings.append(
            f"quantize: llama.cpp ignores the sliding window of {window} tokens, so it computes longer texts differently"
        )
    if recipe.gguf and (note := note_of(released.config)):
        warnings.append(f"quantize: {note[0].lower()}{note[1:]}")
    return warnings


def _unstorable(released: Node) -> str | None:
    """Return which of a model's tensors a GGUF cannot have, or lacks; None if it can be made."""
    shapes = {name: tensor.shape for name, (_, tensor) in released.tensors.items()}
    try:
        gguf_shapes(released.config, shapes, repr(released.name))
    except (CheckpointError, StepError) as error:
        return str(error).rstrip(".")
    return None
