"""Lined-up rows: a tensor with a row for each token, put together of rows of several models' tensors."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from herdbook.plan.alignment import MEAN, PADDING, ROW, name_of, parts_of
from herdbook.weights.checkpoint import Produced
from herdbook.weights.tensors import DTYPES, from_bytes, to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

    from herdbook.plan import Origin, Tensor
    from herdbook.plan.alignment import Run
    from herdbook.steps.inputs import ParentShards
    from herdbook.weights.record import SliceEntry, TensorEntry


def line_up(
    tensors: Mapping[int, torch.Tensor], runs: Sequence[Run], width: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """Return the rows that runs describe; see ``herdbook.plan.alignment``.

    Means are computed in float32, in the order of the models; padding is the mean of the rows before it.

    Args:
        tensors: The tensors of the models by their place, any floating-point dtype.
        runs: The runs, in order and without a gap.
        width: The shape of a row.
        dtype: The dtype of the result.
    """
    import torch

    count = sum(run[1] for run in runs)
    made = torch.zeros((count, *width), dtype=dtype)
    for first, length, kind, *what in runs:
        place = slice(first, first + length)
        if kind == ROW:
            made[place] = tensors[what[0]][what[1] : what[1] + length].to(dtype)
        elif kind == MEAN:
            total = torch.zeros((length, *width))
            for model, row in what[0]:
                total += tensors[model][row : row + length].float()
            made[place] = (total / len(what[0])).to(dtype)
        elif kind == PADDING:
            made[place] = made[:first].float().mean(dim=0).to(dtype)
    return made


def put_together(
    parents: ParentShards, tensor: Tensor, runs: Sequence[Run], advance: Callable[[], None]
) -> Produced:
    """Return a tensor that is put together of rows; each run is a slice in its record."""
    entry: TensorEntry = {"action": "rows"}

    def chunks() -> Iterator[bytes]:
        origins = iter(tensor.origins)
        cited = [[(next(origins), place, row) for place, row in parts_of(run)] for run in runs]
        by_place = {place: origin for run in cited for origin, place, _ in run}
        read = {place: _read(parents, origin) for place, origin in by_place.items()}
        made = line_up(read, runs, tensor.shape[1:], DTYPES[tensor.dtype])
        slices: list[SliceEntry] = []
        for run, of in zip(runs, cited, strict=True):
            first, count, kind, *_ = run
            data = to_bytes(made[first : first + count])
            slices.append(
                {
                    "name": name_of(tensor.name, run),
                    "shape": [count, *tensor.shape[1:]],
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "kind": kind,
                    "rows": [row for _, _, row in of],
                    "from": parents.cite(tuple(origin for origin, _, _ in of)),
                }
            )
            yield data
        entry["slices"] = slices
        advance()

    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, entry)


def _read(parents: ParentShards, origin: Origin) -> torch.Tensor:
    span = parents.shard(origin.part).span(origin.tensor)
    return from_bytes(parents.read(origin), span.dtype, span.shape, f"tensor {origin.tensor}")
