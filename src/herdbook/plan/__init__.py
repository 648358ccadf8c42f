"""Planning: from a recipe and its lock to nodes, parts, keys, sizes and needs."""

from herdbook.plan.model import TORCH_BYTES, Node, Origin, Part, Search, Tensor
from herdbook.plan.plan import Conversion, Evaluation, Plan, Quantized, check_disk, load, make
from herdbook.plan.routing import Report

__all__ = [
    "TORCH_BYTES",
    "Conversion",
    "Evaluation",
    "Node",
    "Origin",
    "Part",
    "Plan",
    "Quantized",
    "Report",
    "Search",
    "Tensor",
    "check_disk",
    "load",
    "make",
]
