"""What mergekit's methods take: those that the recipe language has under its own names, and those under mergekit's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from herdbook.humanize import did_you_mean
from herdbook.recipe.mergekit_methods import METHODS, Method

if TYPE_CHECKING:
    from herdbook.importing.value import Value

_TASK_VECTORS = Method(
    {"int8_mask": "boolean", "normalize": "boolean", "rescale": "boolean", "lambda": "number"},
    {"weight": "number", "density": "number"},
    ("weight",),
)
_DARE = replace(_TASK_VECTORS, draws=True)

# Source: mergekit 0.1.5, ``merge_methods.registry``; a test compares them with the installed mergekit.
NATIVE = {
    "linear": Method({"normalize": "boolean"}, {"weight": "number"}, ("weight",), "ignored"),
    "slerp": Method({"t": "number"}, required=("t",), models=1),
    "task_arithmetic": _TASK_VECTORS,
    "ties": _TASK_VECTORS,
    "dare_linear": _DARE,
    "dare_ties": _DARE,
    "model_stock": Method({"filter_wise": "boolean"}),
    "passthrough": Method({}, {"scale": "number"}, base="ignored"),
}
ALL = {**NATIVE, **METHODS}
PARAMETERS = sorted({name for method in ALL.values() for name in (*method.shared, *method.of_models)})
# Parameters that a method has, and that change nothing.
WITHOUT_EFFECT = {
    "int8_mask": "it only saves memory in mergekit",
}
# Parameters that a method of mergekit declares, and does not use.
UNUSED = {"task_arithmetic": ("density", "rescale")}
# What is taken for a required parameter that is not given anywhere; mergekit refuses such a configuration.
TAKEN = {"weight": 1.0, "t": 0.5}


def refuse_unknown(method: str, at: Value) -> None:
    """Refuse a method that mergekit does not have; one that it has needs no note."""
    if method not in ALL:
        known = did_you_mean(method, ALL) or f"; there are {', '.join(sorted(ALL))}"
        at.refuse(f"unknown method {method!r}{known}")
