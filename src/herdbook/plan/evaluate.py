"""Planning the measurements: of models of the graph, and of quantized files of the released one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from herdbook.key import SHORT, digest
from herdbook.plan.asked import Group, groups
from herdbook.plan.code import TOKENIZERS, Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from herdbook.lock import Lock
    from herdbook.plan.model import Node
    from herdbook.plan.quantize import Quantized
    from herdbook.recipe import Asked, Evaluate, Recipe

EVALUATE_CODE = Code(
    "evaluate",
    ("herdbook.steps.evaluate.step",),
    without=(
        "herdbook.steps.quantize.dequantize",
        "herdbook.steps.evaluate.llama",
        "herdbook.steps.evaluate.llama_runtime",
    ),
    packages=TOKENIZERS,
)
DEQUANTIZE_CODE = Code("dequantize", ("herdbook.steps.quantize.dequantize",))
# The version of llama.cpp's runtime stands in the module, since few machines have it, and all must compute the same key.
RUNTIME_CODE = Code(
    "runtime",
    ("herdbook.steps.evaluate.llama", "herdbook.steps.evaluate.llama_runtime"),
    without=("llama-cpp-python",),
)


@dataclass(frozen=True)
class Evaluation:
    """The measurement of a model of the graph, or of a quantized file of the released one, on one group of tasks.

    Args:
        name: The name on the card of what is measured; its measurements on other groups have the same.
        node: The model.
        quantized: The quantized file of the model, if that is measured.
        key: Digest that identifies it.
        settings: How it is measured, as JSON.
        group: The tasks.
        made_as: Name of the first measurement with the same key, whose file it shares; empty if it is the first.
        runtime: What runs the quantized file; empty if it is dequantized.
    """

    name: str
    node: Node
    quantized: Quantized | None
    key: str
    settings: dict[str, Any] = field(hash=False)
    group: Group = field(hash=False)
    made_as: str = ""
    runtime: str = ""

    @property
    def label(self) -> str:
        """Its name, with that of the group."""
        return _label(self.name, self.group)

    @property
    def id(self) -> str:
        """Name of its result file, without suffix."""
        return f"{_label(self.made_as or self.name, self.group)}-{self.key[:SHORT]}"

    @property
    def about(self) -> dict[str, Any]:
        """What its result states about how it was measured, as JSON."""
        return {
            "operation": "evaluate",
            "key": self.key,
            "name": self.made_as or self.name,
            "settings": self.settings,
            "code": EVALUATE_CODE.describe().json,
        }


def plan_evaluations(
    recipe: Recipe, lock: Lock, nodes: Mapping[str, Node], quantized: Iterable[Quantized]
) -> tuple[Evaluation, ...]:
    """Return the measurements: models in the recipe's order, then quantized files; of each, one for each group of tasks."""
    section = recipe.evaluate
    if section is None:
        return ()
    asked = groups(recipe, lock)
    first: dict[str, str] = {}

    def planned(name: str, node: Node, item: Quantized | None, runtime: str = "") -> Iterator[Evaluation]:
        code = RUNTIME_CODE if runtime else DEQUANTIZE_CODE
        measured = {"key": item.key, "code": code.describe().json} if item else None
        own = {"runtime": runtime, "batch_size": 1, "dtype": "as stored"} if runtime else {}
        for group in asked:
            settings = _settings(section, lock, group)
            key = digest({**settings, **own, "model": node.key, "quantized": measured})
            made_as = first.setdefault(key, name)
            said = {**_said(section, group), **own}
            yield Evaluation(name, node, item, key, said, group, made_as if made_as != name else "", runtime)

    models = [item for name in section.models for item in planned(name, nodes[name], None)]
    if not (recipe.quantize and recipe.quantize.evaluate):
        return tuple(models)
    released = nodes[recipe.release.model]
    files = list(quantized)
    for runtime in dict.fromkeys(("", recipe.quantize.runtime or "")):
        for file in files:
            name = ".".join([released.name, file.method, *([runtime] if runtime else [])])
            models += planned(name, released, file, runtime)
    return tuple(models)


def measured_as(evaluations: Iterable[Evaluation], name: str) -> tuple[Evaluation, ...]:
    """Return the measurements of a model of the graph, on all groups of tasks."""
    return tuple(item for item in evaluations if item.name == name and item.quantized is None)


def _label(name: str, group: Group) -> str:
    return ".".join([name, *([group.name] if group.name else [])])


def _settings(section: Evaluate, lock: Lock, group: Group) -> dict[str, Any]:
    """Return all that decides a measurement besides what is measured, as JSON."""
    read = {name for locked, _ in group.tasks for name in locked.repos}
    return {
        "operation": "evaluate",
        "tasks": [{**locked.model_dump(mode="json"), "asked": _own(asked)} for locked, asked in group.tasks],
        "data_sets": {
            name: one.model_dump(mode="json") for name, one in lock.data_sets.items() if name in read
        },
        "harness": lock.harness.model_dump(mode="json") if lock.harness else None,
        "batch_size": section.batch_size,
        **({} if group.dtype == "float32" else {"dtype": group.dtype}),  # as older records have it
        "code": EVALUATE_CODE.describe().json,
    }


def _said(section: Evaluate, group: Group) -> dict[str, Any]:
    """Return what a measurement states of its settings: those of single tasks only where they differ from the others."""
    said: dict[str, Any] = {
        "limit": section.limit,
        "batch_size": section.batch_size,
        "dtype": group.dtype,
    }
    if group.suite:
        said["suite"] = group.suite
    if own := {locked.name: found for locked, asked in group.tasks if (found := _own(asked, section.limit))}:
        said["tasks"] = own
    return said


def _own(asked: Asked, limit: int | None = None) -> dict[str, Any]:
    """Return the settings of a task, but for a limit of all tasks, and for the type, which is that of its group."""
    return {
        name: value
        for name, value in asked.given.items()
        if name != "dtype" and (limit is None or (name, value) != ("limit", limit))
    }
