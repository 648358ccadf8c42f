"""Planning: from a recipe and its lock to nodes, parts and keys."""

from typing import TypeAlias

from herdbook.plan.evaluate import Evaluation
from herdbook.plan.model import Layout, Node, Origin, Part, Search, Tensor
from herdbook.plan.plan import Plan, load, make
from herdbook.plan.quantize import Conversion, Quantized
from herdbook.plan.routing import Report

# What of a plan one job makes; None for what is made of the release as a whole.
Subject: TypeAlias = Part | Search | Node | Evaluation | Conversion | Quantized | Report | None

__all__ = [
    "Conversion",
    "Evaluation",
    "Layout",
    "Node",
    "Origin",
    "Part",
    "Plan",
    "Quantized",
    "Report",
    "Search",
    "Subject",
    "Tensor",
    "load",
    "make",
]
