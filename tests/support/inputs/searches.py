"""Searches over a model by which nothing could be found, or shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support import tuned
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHT = {"path": "merge.models.0.weight", "low": 0, "high": 2}


def search(**changes: Any) -> Callable[[Path], Path]:
    """Return a maker of a merge whose search is changed; what is None is left out."""
    section = {key: value for key, value in {**tuned.SEARCH, **changes}.items() if value is not None}
    return lambda folder: tuned.write(folder, section)


def over(**changes: Any) -> Callable[[Path], Path]:
    """Return a maker of a merge with a search over one weight, which is changed."""
    return search(over=[WEIGHT | changes])


def same_documents(folder: Path) -> Path:
    """Write a search whose test split is a copy of the validation split."""
    recipe = tuned.write(folder)
    (folder / "test.jsonl").write_bytes((folder / "validation.jsonl").read_bytes())
    return recipe


CASES = [
    Case(
        "a search over a number that the recipe does not have",
        over(path="merge.models.0.wieght"),
        "models.sum.search.over.0: merge.models.0.wieght: what is searched must be written in the recipe, as the start, and the "
        "model's entry has no 'wieght' in merge.models.0; did you mean 'weight'?",
    ),
    Case(
        "a search over what is no number",
        over(path="merge.method"),
        "models.sum.search.over.0: merge.method is no number, and has none",
    ),
    Case(
        "a search whose range is reversed",
        over(low=2, high=0),
        "models.sum.search.over.0: low (2) is not below high (0)",
    ),
    Case(
        "a search whose start is not in its range",
        over(low=1),
        "models.sum.search.over.0: merge.models.0.weight is 0.5 in the recipe, which is not between 1 and 2",
    ),
    Case(
        "a number that is searched twice",
        search(over=[WEIGHT, {**WEIGHT, "path": "merge.models"}]),
        "models.sum.search.over: merge.models.0.weight is searched twice",
    ),
    Case(
        "a number in a list whose order is searched, too",
        search(over=[WEIGHT, {"order": "merge.models"}]),
        "models.sum.search.over: merge.models.0.weight is searched, and so is merge.models, of which it is a part",
    ),
    Case(
        "a choice of a number that is none",
        search(over=[{"path": "merge.models.0.weight", "choices": [0.5, "lots"]}]),
        "models.sum.search.over: the entry does not take the high ends of what is searched: merge.models.0.weight: expected a ",
    ),
    Case(
        "a choice that is none of what the key can be",
        search(over=[{"path": "merge.normalize", "choices": [False, "perhaps"]}]),
        "models.sum.search.over: the entry does not take the high ends of what is searched: merge.normalize: expected true or "
        "false (found 'perhaps')",
    ),
    Case(
        "a choice of another model than those of the merge",
        search(over=[{"path": "merge.models.0.model", "choices": ["a", "b"]}]),
        "models.sum.search.over: with one of the choices, the model is made from other models than with what is written",
    ),
    Case(
        "a search without a validation split",
        search(validation=None),
        "models.sum.search.validation: missing",
    ),
    Case(
        "a search that is tested on what its trials are judged by",
        search(test="validation.yaml"),
        "models.sum.search.test: is the task of `validation`. What trials are judged by cannot show that their winner is better",
    ),
    Case(
        "the same, by another name",
        same_documents,
        "models.sum.search.test: reads test.jsonl, as `validation` does",
    ),
    Case(
        "a search by a metric that its task does not have",
        search(metric="acc"),
        "models.sum.search.metric: validation has no 'acc'; it has bits_per_byte",
    ),
]
