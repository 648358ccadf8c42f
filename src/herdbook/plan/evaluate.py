"""Planning the measurements: of models of the graph, and of quantized files of the released one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from herdbook.key import SHORT, digest
from herdbook.plan.asked import asked_tasks
from herdbook.plan.code import TOKENIZERS, Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from herdbook.jsonio import JsonObject
    from herdbook.lock import Lock
    from herdbook.plan.model import Node
    from herdbook.plan.quantize import Quantized
    from herdbook.recipe import Asked, Recipe

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
    """The measurement of a model of the graph, or of a quantized file of the released one.

    Args:
        name: Its name on the card.
        node: The model.
        quantized: The quantized file of the model, if that is measured.
        key: Digest that identifies it.
        settings: How it is measured, as JSON.
        runtime: What runs the quantized file; empty if it is dequantized.
        made_as: Name of the first measurement with the same key, whose file it shares; empty if it is the first.
    """

    name: str
    node: Node
    quantized: Quantized | None
    key: str
    settings: JsonObject = field(hash=False)
    made_as: str = ""
    runtime: str = ""

    @property
    def id(self) -> str:
        """Name of its result file, without suffix."""
        return f"{self.made_as or self.name}-{self.key[:SHORT]}"

    @property
    def about(self) -> JsonObject:
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
    """Return the measurements: models in the recipe's order, then quantized files."""
    section = recipe.evaluate
    if section is None:
        return ()
    asked = asked_tasks(recipe, lock)
    settings: JsonObject = {
        "operation": "evaluate",
        "tasks": [{**task.model_dump(mode="json"), "asked": own.given} for task, own in asked],
        "data_sets": {name: one.model_dump(mode="json") for name, one in lock.data_sets.items()},
        "harness": lock.harness.model_dump(mode="json") if lock.harness else None,
        "batch_size": section.batch_size,
        **({} if section.dtype == "float32" else {"dtype": section.dtype}),  # as older records have it
        "code": EVALUATE_CODE.describe().json,
    }

    measured_with: JsonObject = {
        "limit": section.limit,
        "batch_size": section.batch_size,
        "dtype": section.dtype,
    }
    if own_settings := {
        task.name: found for task, own in asked if (found := _of_its_own(own, section.limit))
    }:
        measured_with["tasks"] = own_settings
    first: dict[str, str] = {}

    def planned(name: str, node: Node, item: Quantized | None, runtime: str = "") -> Evaluation:
        code = RUNTIME_CODE if runtime else DEQUANTIZE_CODE
        measured = {"key": item.key, "code": code.describe().json} if item else None
        own: JsonObject = {"runtime": runtime, "batch_size": 1, "dtype": "as stored"} if runtime else {}
        key = digest({**settings, **own, "model": node.key, "quantized": measured})
        made_as = first.setdefault(key, name)
        return Evaluation(
            name, node, item, key, {**measured_with, **own}, made_as if made_as != name else "", runtime
        )

    models = [planned(name, nodes[name], None) for name in section.models]
    if not (recipe.quantize and recipe.quantize.evaluate):
        return tuple(models)
    released = nodes[recipe.release.model]
    files = list(quantized)
    runtime = recipe.quantize.runtime
    return (
        *models,
        *(planned(f"{released.name}.{item.method}", released, item) for item in files),
        *(
            planned(f"{released.name}.{item.method}.{runtime}", released, item, runtime)
            for item in files
            if runtime
        ),
    )


def _of_its_own(asked: Asked, limit: int | None) -> JsonObject:
    """Return the settings of a task, but for the limit of all tasks."""
    return {name: value for name, value in asked.given.items() if (name, value) != ("limit", limit)}
