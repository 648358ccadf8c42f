"""The elements of a plan: nodes (models), parts (the shards to be made) and tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from herdbook.key import SHORT
from herdbook.layout import WEIGHTS
from herdbook.weights.dtypes import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan.code import DescribedCode
    from herdbook.plan.operation import CalibrationText, Operation, Parameters, Rule
    from herdbook.recipe import Guard, RankRule, Section, Select
    from herdbook.weights.record import Action


@dataclass(frozen=True)
class Origin:
    """A tensor of a parent model.

    Args:
        part: Key of the part that contains it.
        tensor: Its name in that part.
    """

    part: str
    tensor: str


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model to be made.

    Args:
        name: Its name in the shard.
        dtype: Its dtype, by the code of safetensors.
        shape: Its shape.
        action: ``fetch`` (it comes from a source), ``copy``, ``zeros``, or the operation that computes it.
        origins: The parents' tensors that it is made from, in the order that the action needs.
        slices: If it is stacked: the canonical names of its slices, in order, one for each origin.
        weights: If it belongs to an encoded matrix: how many weights it holds, none if it holds their scales.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    action: Action
    origins: tuple[Origin, ...] = ()
    slices: tuple[str, ...] = ()
    weights: int | None = None

    @property
    def parameters(self) -> int:
        """Number of the model's parameters that it holds."""
        return self.elements if self.weights is None else self.weights

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Size of the data in bytes."""
        return self.elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Part:
    """One shard to be made: one job.

    Args:
        model: Name of the model that it belongs to.
        label: A name that is unique in the model, such as ``expert2-1``.
        operation: How it is made, with all parameters beyond the tensors.
        key: Digest that identifies it.
        tensors: The tensors that it contains.
        code: The code that the result depends on, as ``Code.describe`` returns it.
    """

    model: str
    label: str
    operation: Operation = field(hash=False)
    key: str
    tensors: tuple[Tensor, ...]
    code: DescribedCode

    @property
    def id(self) -> str:
        """Name of its files, without their suffix."""
        return f"{self.model}.{self.label}-{self.key[:SHORT]}"

    @property
    def rule(self) -> Rule:
        """The rule, subcommand and step that makes it."""
        return self.operation.rule

    @property
    def about(self) -> Parameters:
        """The content of its record, except the tensors."""
        return {
            "operation": self.rule,
            "key": self.key,
            "code": self.code.json,
            "parameters": self.operation.parameters,
        }

    @property
    def size_bytes(self) -> int:
        """Size of its tensors in bytes."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def computed(self) -> tuple[Tensor, ...]:
        """Its tensors that are not copies."""
        return tuple(tensor for tensor in self.tensors if tensor.action != "copy")

    @property
    def reduced(self) -> tuple[Tensor, ...]:
        """Its tensors whose rank is reduced."""
        return tuple(tensor for tensor in self.tensors if tensor.action == "laser")

    @property
    def is_copy(self) -> bool:
        """Whether it contains only copies, so that its job takes seconds and a single core."""
        return not self.computed

    @property
    def parents(self) -> tuple[str, ...]:
        """Keys of the parts that it reads, each once, in the order of their first use."""
        return tuple(dict.fromkeys(origin.part for tensor in self.tensors for origin in tensor.origins))


@dataclass(frozen=True)
class Search:
    """The search for a lasered model's matrices and ranks, where the recipe does not fix them.

    Args:
        model: Name of the lasered model.
        parent: Name of the model that it is made from, whose assembled folder is read.
        key: Digest that identifies it.
        matrices: The candidates' names, sorted.
        ranks: The rank rules, in the order in which they are tried.
        select: How candidates are ranked and how many are tried; None for all.
        guard: The test that a reduction has to pass; None without a test.
        text: The calibration text that is read; None without one.
        code: The code that the result depends on, as ``Code.describe`` returns it.
    """

    model: str
    parent: str
    key: str
    matrices: tuple[str, ...]
    ranks: tuple[RankRule, ...]
    select: Select | None
    guard: Guard | None
    text: CalibrationText | None
    code: DescribedCode

    @property
    def id(self) -> str:
        """Name of its file, without suffix."""
        return f"{self.model}-{self.key[:SHORT]}"

    @property
    def about(self) -> Parameters:
        """What its result states about how it was made, as JSON."""
        return {
            "operation": "search",
            "key": self.key,
            "code": self.code.json,
            "parameters": self.parameters,
        }

    @property
    def parameters(self) -> Parameters:
        """All its parameters, as JSON, in the form of the key and of the result."""
        return {
            "ranks": [rule.canonical for rule in self.ranks],
            "matrices": list(self.matrices),
            "select": self.select.model_dump(mode="json") if self.select else None,
            "guard": self.guard.model_dump(mode="json") if self.guard else None,
            "calibration": self.text.parameters if self.text else None,
        }

    @property
    def needs_text(self) -> bool:
        """Whether one of its rank rules reads calibration text."""
        return any(rule.needs_text for rule in self.ranks)

    @property
    def spreads(self) -> bool:
        """Whether one of its rank rules spreads a budget over the matrices."""
        return any(rule.spreads is not None for rule in self.ranks)


@dataclass(frozen=True)
class Node:
    """One model of the recipe.

    Args:
        name: Its name in the recipe.
        operation: The rule of its parts.
        key: Digest that identifies it: of its parts' keys, in order, and of its other files.
        recipe: Its entry in the recipe.
        parents: Names of the models that it is made from, in the recipe's order.
        parts: Its shards.
        config: Its configuration (``config.json``), as far as planning needs it.
        files: Names of its other files (configuration, tokenizer, ...).
        files_from: Name of the parent whose other files it takes over; its own name for a source.
        search: The search that chooses its matrices, if it is lasered and the recipe does not fix them.
        form: The shape of each of its tensors by name, including tensors that are not needed and so not made.
        chat_template: Whether its tokenizer has a chat template, as far as the lock states it.
        made_as: Name of the first model of the recipe with the same key, whose folder it shares; empty if it is the first.
    """

    name: str
    operation: Rule
    key: str
    recipe: Section
    parents: tuple[str, ...]
    parts: tuple[Part, ...]
    config: dict[str, Any] = field(hash=False)
    files: tuple[str, ...] = ()
    files_from: str = ""
    search: Search | None = None
    form: dict[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    chat_template: bool = True
    made_as: str = ""

    @property
    def id(self) -> str:
        """Name of its folder."""
        return f"{self.made_as or self.name}-{self.key[:SHORT]}"

    @property
    def shard_names(self) -> tuple[str, ...]:
        """Names of its weights files in its folder, one for each part."""
        count = len(self.parts)
        if count == 1:
            return (WEIGHTS,)
        return tuple(f"model-{index:05d}-of-{count:05d}.safetensors" for index in range(1, count + 1))

    @cached_property  # planning looks up each tensor of each model in it
    def tensors(self) -> Mapping[str, tuple[Part, Tensor]]:
        """Its tensors by name, each with the part that contains it."""
        return {tensor.name: (part, tensor) for part in self.parts for tensor in part.tensors}

    @property
    def parameters(self) -> int:
        """Number of parameters, over all tensors."""
        return sum(tensor.parameters for part in self.parts for tensor in part.tensors)

    @property
    def size_bytes(self) -> int:
        """Size of the weights in bytes."""
        return sum(part.size_bytes for part in self.parts)
