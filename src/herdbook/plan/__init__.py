"""Planning: from a recipe and its lock to nodes, parts and keys."""

from herdbook.plan.data import EvaluationData
from herdbook.plan.evaluate import Evaluation
from herdbook.plan.imatrix import Imatrix
from herdbook.plan.loss import FileLoss, Reference
from herdbook.plan.model import Node, Origin, Part, Search, Tensor
from herdbook.plan.plan import Plan, load, make
from herdbook.plan.quantize import Conversion, Quantized
from herdbook.plan.routing import RoutingReport
from herdbook.plan.searched import load_at_least_start

__all__ = [
    "Conversion",
    "Evaluation",
    "EvaluationData",
    "FileLoss",
    "Imatrix",
    "Node",
    "Origin",
    "Part",
    "Plan",
    "Quantized",
    "Reference",
    "RoutingReport",
    "Search",
    "Tensor",
    "load",
    "load_at_least_start",
    "make",
]
