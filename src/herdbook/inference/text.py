"""Calibration text: windows of tokens, drawn from locked files."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.inference.expressions import check_time
from herdbook.inference.forward import check_sequences
from herdbook.inference.tokenizer import ids_of, load_tokenizer
from herdbook.key import digest
from herdbook.lock import check_pinned
from herdbook.lock.texts import read_texts

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from herdbook.plan import Plan
    from herdbook.plan.operation import CalibrationText


def calibration_id(text: CalibrationText, model: str) -> str:
    """Return the digest of what whitened decompositions depend on besides the matrix: the text and the model's key."""
    return digest({"text": text.parameters, "model": model})


def windows(plan: Plan, name: str, folder: Path, config: Any, count: int) -> list[list[int]]:
    """Draw windows of calibration text.

    Each document is cut into windows of the recipe's length; the rest at its end is not used. All windows of all files are
    shuffled with the seed, and the first ``count`` are returned. Each begins with the tokens that the tokenizer puts before
    a text.

    Args:
        plan: The plan.
        name: The calibration text's name in the recipe.
        folder: The model whose tokenizer is used.
        config: The model's configuration, to check that it can read the windows.
        count: How many windows.

    Returns:
        Token ids, each window of the length in the recipe.

    Raises:
        LockError: If a file changed since it was locked.
        StepError: If the tokenizer has no token for a word of the text, or if the text has too few windows.
    """
    settings = plan.recipe.calibration[name]
    for file, pinned in zip(settings.data, plan.lock.calibration[name].data, strict=True):
        check_pinned(plan.beside_recipe(file), pinned, f"calibration.{name}")
    tokenizer = load_tokenizer(folder)
    start = list(tokenizer("")["input_ids"])
    length = settings.tokens - len(start)
    drawn: list[list[int]] = []
    for file in settings.data:
        texts = read_texts(plan.beside_recipe(file), settings.field, f"calibration.{name}")
        check_time(tokenizer, texts, f"calibration.{name}: {file}")
        for text in texts:
            ids = ids_of(tokenizer, text, f"calibration.{name}: {file}")
            drawn += [start + ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
    if len(drawn) < count:
        raise StepError(
            f"calibration.{name}: its text has {len(drawn)} windows of {settings.tokens} tokens; {count} are needed. "
            "Add text, or set smaller or fewer windows."
        )
    random.Random(settings.seed).shuffle(drawn)  # noqa: S311 - reproducible, not secret
    check_sequences(drawn[:count], config, f"calibration.{name}: window")
    return drawn[:count]
