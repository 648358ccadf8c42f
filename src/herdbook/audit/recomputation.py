"""Recomputing the numbers of a dense merge from its sources, as its plan defines them: blocks, or whole tensors.

A method that computes each element from the elements at the same place needs only these, so a block is enough. Others need a
norm, an angle or a rank over the whole tensor. What several steps make is computed on the fly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from herdbook.errors import UnverifiedError
from herdbook.plan.operation import MergeTensors
from herdbook.steps.aligned import line_up
from herdbook.steps.merge.step import merged_tensor
from herdbook.weights.dtypes import ITEM_BYTES
from herdbook.weights.tensors import DTYPES, from_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from herdbook.audit.planned import PlannedMerge
    from herdbook.plan import Origin, Part, Tensor
    from herdbook.plan.operation import Values

# Methods that compute each element from those at the same place alone.
ELEMENTWISE = ("linear", "task_arithmetic", "passthrough", "nearswap", "ram")
# Methods that do so if no task vector is made sparse.
SPARSE = ("ties", "breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della", "della_linear")
DRAWING = ("dare_linear", "dare_ties", "della", "della_linear")


@dataclass(frozen=True)
class Computed:
    """A block of a tensor, or all of it, recomputed.

    Args:
        result: Its numbers in the dtype that is written, as mergekit computes them.
        inputs: The numbers of the models that it is made from, the base first if there is one; none if it is no merge.
        part: The part of the plan that makes it.
        tensor: The tensor of the plan.
    """

    result: torch.Tensor
    inputs: tuple[torch.Tensor, ...]
    part: Part
    tensor: Tensor

    @property
    def operation(self) -> MergeTensors | None:
        """How it is merged; None if it is a copy, or put together of rows."""
        return _merging(self.part, self.tensor)

    @property
    def values(self) -> Values:
        """The parameters that it is merged with; empty if it is not merged."""
        return self.operation.values[self.tensor.name] if self.operation else {}

    @property
    def dtype(self) -> torch.dtype:
        """The coarser one of the dtypes that it is computed in and that it is written in."""
        dtypes = [self.result.dtype]
        if self.operation:
            given = self.operation.settings.get("dtype")
            dtypes += [DTYPES[str(given)]] if given else []
        import torch

        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    def with_inputs(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what the same merge makes of other numbers, in the dtype that is written."""
        assert self.operation  # noqa: S101 - only merges have inputs
        return merged_tensor(self.operation, list(inputs), self.tensor).to(self.result.dtype)

    def exact(self) -> torch.Tensor:
        """Return its numbers in float32, before they are rounded."""
        if self.operation is None:
            return self.result.float()
        precise = replace(self.operation, settings={**self.operation.settings, "dtype": "F32"})
        return merged_tensor(precise, list(self.inputs), self.tensor).float()


class Recomputation:
    """The numbers of a merge, as its plan defines them.

    Args:
        merge: The plan, and the models.
    """

    def __init__(self, merge: PlannedMerge) -> None:
        self._plan = merge.plan
        self._models = merge.models
        self._tensors: dict[str, Mapping[str, Tensor]] = {
            key: {tensor.name: tensor for tensor in part.tensors} for key, part in merge.plan.parts.items()
        }

    def of(self, name: str, start: int | None = None, stop: int | None = None) -> Computed:
        """Return elements of a tensor of the released model, or all of them.

        Args:
            name: Its name.
            start: The first element; None for the whole tensor in its shape.
            stop: The element after the last one.

        Raises:
            UnverifiedError: If it is made in a way that is not recomputed here.
            SourceError: If a source cannot be read.
            CheckpointError: If a source has values that are not finite.
            StepError: If the method has no result for these tensors.
        """
        part, tensor = self._plan.released.tensors[name]
        while tensor.action == "copy":
            (origin,) = tensor.origins
            part, tensor = self._at(origin)
        operation = _merging(part, tensor)
        if operation is None:
            return Computed(self._made(part, tensor, start, stop), (), part, tensor)
        inputs = tuple(self._read(origin, start, stop) for origin in tensor.origins)
        result = merged_tensor(operation, list(inputs), tensor).to(DTYPES[tensor.dtype])
        return Computed(result, inputs, part, tensor)

    def is_elementwise(self, name: str) -> bool:
        """Return whether elements of a tensor of the released model can be computed without the others."""
        return self._is_elementwise(*self._plan.released.tensors[name])

    def is_drawn(self, name: str) -> bool:
        """Return whether random numbers decide a tensor of the released model."""
        return _is_drawn(*self._plan.released.tensors[name])

    def from_drawn(self, name: str) -> bool:
        """Return whether a tensor of the released model is made from others that random numbers decide."""
        _, tensor = self._plan.released.tensors[name]
        return any(self._is_or_from_drawn(origin) for origin in tensor.origins)

    def is_lined_up(self, name: str) -> bool:
        """Return whether a tensor of the released model is put together of rows, or merged of lined-up ones."""
        part, tensor = self._plan.released.tensors[name]
        operation = _merging(part, tensor)
        return tensor.action == "rows" or bool(operation and "rows" in operation.values[name])

    def elements(self, name: str) -> int:
        """Return how many elements of sources and of the result are in memory to compute a whole tensor."""
        _, tensor = self._plan.released.tensors[name]
        return tensor.elements * (2 + len(tensor.origins))

    def _at(self, origin: Origin) -> tuple[Part, Tensor]:
        return self._plan.parts[origin.part], self._tensors[origin.part][origin.tensor]

    def _is_or_from_drawn(self, origin: Origin) -> bool:
        part, tensor = self._at(origin)
        return _is_drawn(part, tensor) or any(self._is_or_from_drawn(parent) for parent in tensor.origins)

    def _is_elementwise(self, part: Part, tensor: Tensor) -> bool:
        if tensor.action == "fetch":
            return True
        if tensor.action == "rows":
            return False
        if operation := _merging(part, tensor):
            method, values = operation.method, operation.values[tensor.name]
            by_element = method in ELEMENTWISE or (method in SPARSE and not _is_sparse(values))
            if not by_element or "rows" in values:
                return False
        return all(self._is_elementwise(*self._at(origin)) for origin in tensor.origins)

    def _read(self, origin: Origin, start: int | None, stop: int | None) -> torch.Tensor:
        return self._made(*self._at(origin), start, stop)

    def _made(self, part: Part, tensor: Tensor, start: int | None, stop: int | None) -> torch.Tensor:
        """Return elements of a tensor of any model of the plan, in its dtype."""
        whole = start is None or stop is None
        if tensor.action == "fetch":
            model, item = self._models[part.model], ITEM_BYTES[tensor.dtype]
            first, last = (0, tensor.elements) if start is None or stop is None else (start, stop)
            data = model.read(tensor.name, first * item, last * item)
            shape = tensor.shape if whole else (last - first,)
            return from_bytes(data, tensor.dtype, shape, f"{model.subject.name}: {tensor.name}")
        if tensor.action == "copy":
            return self._read(tensor.origins[0], start, stop)
        if tensor.action == "rows" and isinstance(part.operation, MergeTensors):
            return self._rows(part.operation, tensor)
        operation = _merging(part, tensor)
        if operation is None:
            raise UnverifiedError(
                f"{tensor.name}: is made by `{part.rule}`, which an audit does not recompute"
            )
        inputs = [self._read(origin, start, stop) for origin in tensor.origins]
        return merged_tensor(operation, inputs, tensor).to(DTYPES[tensor.dtype])

    def _rows(self, operation: MergeTensors, tensor: Tensor) -> torch.Tensor:
        from herdbook.plan.alignment import parts_of

        runs = operation.values[tensor.name]["rows"]
        origins = iter(tensor.origins)
        by_place = {place: next(origins) for run in runs for place, _ in parts_of(run)}
        held = {place: self._read(origin, None, None) for place, origin in by_place.items()}
        return line_up(held, runs, tensor.shape[1:], DTYPES[tensor.dtype])


def _merging(part: Part, tensor: Tensor) -> MergeTensors | None:
    """Return how a tensor is merged; None if it is a copy, or put together of rows."""
    operation = part.operation
    return operation if isinstance(operation, MergeTensors) and tensor.action == "merge" else None


def _is_sparse(values: Values) -> bool:
    densities = values.get("densities")
    return isinstance(densities, list) and min(densities, default=1.0) < 1


def _is_drawn(part: Part, tensor: Tensor) -> bool:
    operation = _merging(part, tensor)
    return operation is not None and operation.method in DRAWING and _is_sparse(operation.values[tensor.name])
